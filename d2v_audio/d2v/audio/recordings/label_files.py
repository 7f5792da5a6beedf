"""Write letters, words and the dictionary for a manifest."""

from collections import Counter
from pathlib import Path, PurePath

from d2v.audio.recordings.dictionary import dictionary_text
from d2v.audio.recordings.manifests import Manifest, read_manifest
from d2v.audio.recordings.transcripts import (
    LETTERS,
    TRANSCRIPT_FILE,
    WORDS,
    letters_of,
    read_librispeech,
    read_two_columns,
    words_of_names,
    words_of_tree,
)
from d2v.core.data import DataError, escaped
from d2v.core.files.atomic import write_text


def write_labels(manifest: Path, dest: Path, name: str, *, transcripts: Path | None = None) -> dict[Path, str]:
    """Write `NAME.ltr` and `NAME.wrd`, and `dict.ltr.txt` with the letters of these recordings if there is none.

    Args:
        manifest: of the recordings.
        dest: folder to write to; it is created.
        name: of the files.
        transcripts: file of names and texts, see `read_two_columns`; None = LibriSpeech's transcript files in the
            folders of the recordings.

    Returns:
        What was written, in words, by file.

    Raises:
        DataError: if a file cannot be read, or a recording has no transcript.
    """
    found = read_manifest(manifest)
    words = (
        _librispeech_words(found) if transcripts is None else words_of_names(read_two_columns(transcripts), found.paths)
    )
    missing = [path for path, text in zip(found.paths, words, strict=True) if text is None]
    if missing:
        source = f"the {TRANSCRIPT_FILE[1:]} files" if transcripts is None else escaped(str(transcripts))
        raise DataError(
            f"{source} have no transcript of {len(missing)} of {len(words)} recordings, the first is "
            f"{escaped(missing[0])}"
        )
    spelled = [letters_of(text or "") for text in words]
    dest.mkdir(parents=True, exist_ok=True)
    texts = {
        dest / f"{name}.{LETTERS}": "".join(f"{' '.join(units)}\n" for units in spelled),
        dest / f"{name}.{WORDS}": "".join(f"{text}\n" for text in words),
    }
    counts = Counter(unit for units in spelled for unit in units)
    said = dict.fromkeys(texts, f"{len(words)} lines")
    dictionary = dest / f"dict.{LETTERS}.txt"
    if not dictionary.exists():
        texts[dictionary] = dictionary_text(counts)
        said[dictionary] = f"{len(counts)} symbols"
    for path, text in texts.items():
        write_text(path, text)
    return said


def _librispeech_words(manifest: Manifest) -> list[str | None]:
    folders = sorted({PurePath(path).parent for path in manifest.paths})
    files = [
        str(folder / file.name)
        for folder in folders
        for file in sorted(Path(manifest.root, folder).glob(f"*{TRANSCRIPT_FILE}"))
    ]
    return words_of_tree(read_librispeech(manifest.root, files), manifest.paths)
