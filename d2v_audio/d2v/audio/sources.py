"""Open the recordings that `data.path` names: a folder, manifests, a list or one file, with lengths and transcripts.

This module provides splits, names and contents; `data` adds reading and batches. No recording is opened here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from d2v.audio.endings import RECORDINGS
from d2v.audio.lengths import measured_lengths
from d2v.audio.manifests import Manifest, is_manifest, read_manifest
from d2v.audio.reading import Reader, entry_of
from d2v.audio.transcripts import (
    LETTERS,
    TRANSCRIPT_FILE,
    Transcripts,
    read_librispeech,
    words_of_tree,
)
from d2v.core.data import Contents, DataError, Splits
from d2v.core.data.folders import LISTS, Files, FileSet, SplitFiles, find_files
from d2v.core.data.folders.layout import splits_by_use

_TEXTS = ".txt files"
_BESIDE = ("ltr", "wrd", "lbl", "phn")


class Recordings(Files):
    """Recordings of a split; an id is the index in its list.

    Args:
        root: folder that the paths are relative to.
        files: paths and classes.
        of_split: whether a folder that contains all files is the folder of their split.
        lengths: samples of each recording at its own rate, Long `n`, from a manifest; None = not known.
        words: transcript of each recording, None = it has none; None = there are no transcripts.
        manifest: with the files of labels beside it, or None.
    """

    def __init__(
        self,
        root: str,
        files: SplitFiles,
        *,
        of_split: bool = False,
        lengths: Tensor | None = None,
        words: list[str | None] | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        super().__init__(root, files, of_split=of_split)
        self.lengths, self.words, self.manifest = lengths, words, manifest

    def sizes(self, ids: Tensor) -> Tensor:
        """Sizes of the given recordings in bytes, -1 = it cannot be read."""
        found = super().sizes(ids)
        for place, id in enumerate(ids.tolist()):
            if found[place] < 0 and (entry := entry_of(self.paths[id])) is not None:
                found[place] = entry[2]
        return found

    def transcripts(self, ending: str) -> Transcripts | None:
        """Transcripts in the units of an ending: `ltr` = letters; None = there are none.

        Raises:
            DataError: if a file of labels does not fit its manifest.
        """
        if self.manifest is not None:
            return self.manifest.transcripts(ending)
        if self.words is None:
            return None
        return Transcripts(lines=self.words, spelled=False, letters=ending == LETTERS, source=self.root)


@frozen(kw_only=True, eq=False)
class RecordingSet:
    """All splits of the recordings that a path names.

    Args:
        files: paths and classes by split.
        words: transcripts by split, see `Recordings`; splits without transcripts are left out.
        manifests: by split; {} = the recordings are not named by manifests.
        folder: where dictionaries and names of classes are.
    """

    files: FileSet
    words: Mapping[str, list[str | None]] = field(factory=dict)
    manifests: Mapping[str, Manifest] = field(factory=dict)
    folder: str
    _measured: dict[str | None, Tensor] = field(factory=dict, init=False)

    def splits(self, train: str | None) -> Splits:
        """The splits by their use; `train` is the one to train on, None = by its name.

        Raises:
            DataError: if there is no such split.
        """
        if train is not None:
            self.files.part(train)
        return splits_by_use(self.files.parts, train)

    def open(self, split: str | None) -> Recordings:
        """The recordings of a split; None = of all splits, without labels if there are several.

        Raises:
            DataError: if the split does not exist or has no recordings.
        """
        parts = self.files.parts
        if split is None and len(parts) > 1:
            return self._all()
        name = next(iter(parts)) if split is None else self.files.part_name(split)
        files = self.files.selected(name)
        manifest = self.manifests.get(name)
        if manifest is not None:
            return Recordings(manifest.root, files, lengths=manifest.lengths, manifest=manifest)
        of_split = self.files.has_splits and split is not None
        return Recordings(self.files.root, files, of_split=of_split, words=self.words.get(name))

    def lengths(self, split: str | None, source: Recordings, reader: Reader) -> Tensor:
        """Length of each recording as it is read, Long `n`, -1 = its header cannot be read.

        Lengths of a manifest are used unless recordings are resampled, since a manifest does not give their rate.
        """
        if source.lengths is not None and not reader.resample:
            return source.lengths
        if split not in self._measured:
            self._measured[split] = measured_lengths(len(source), lambda id: reader.length(source.path(id)))
        return self._measured[split]

    @property
    def has_labels(self) -> bool:
        """Whether a split has labels of any kind."""
        beside = any(one.beside(end).is_file() for one in self.manifests.values() for end in _BESIDE)
        return beside or bool(self.words) or any(part.classes for part in self.files.parts.values())

    def _all(self) -> Recordings:
        if not self.manifests:
            return Recordings(self.files.root, self.files.selected(None))
        manifests = self.manifests.values()
        paths = [os.path.join(one.root, path) for one in manifests for path in one.paths]  # noqa: PTH118 - any bytes
        return Recordings("", SplitFiles(paths=paths), lengths=torch.cat([one.lengths for one in manifests]))

    def contents(self, sample_rate: int) -> Contents:
        """Describe the recordings; hours are known from manifests only.

        Raises:
            DataError: if there are no recordings.
        """
        facts, notes = [], []
        if self.manifests:
            total = sum(int(one.lengths.sum()) for one in self.manifests.values())
            facts.append(f"{total / sample_rate / 3600:.3g} h")
        found = {name: sum(line is not None for line in lines) for name, lines in self.words.items()}
        labelled = [name for name, one in self.manifests.items() if any(one.beside(end).is_file() for end in _BESIDE)]
        if found or labelled:
            facts.append("transcripts" if found else f"labels of {', '.join(labelled)}")
        for name, count in found.items():
            if missing := len(self.words[name]) - count:
                notes.append(f"{name} has {missing} recordings without a transcript")
        contents = self.files.contents()
        return evolve(contents, facts=tuple(facts), notes=(*contents.notes, *notes))


def open_recordings(path: str) -> RecordingSet:
    """Open the recordings that a path names.

    Raises:
        DataError: if they do not exist or cannot be used.
    """
    if os.path.isdir(path):  # noqa: PTH112 - any bytes
        manifests = sorted(file for file in Path(path).glob("*.tsv") if is_manifest(file))
        if manifests:
            return _manifest_set(path, manifests)
    elif path.lower().endswith(".tsv") and is_manifest(path):
        return _manifest_set(path, [Path(path)])
    files = find_files(path, RECORDINGS, more=["text"])
    if files is None:
        raise DataError(
            f"data.path={path!r} is neither a folder nor a recording, a list of recordings ({', '.join(LISTS)}) or a "
            "manifest (.tsv)"
        )
    columns = {name: part.more["text"] for name, part in files.parts.items() if "text" in part.more}
    if columns:
        words: dict[str, list[str | None]] = {name: [line or None for line in lines] for name, lines in columns.items()}
        return RecordingSet(files=files, words=words, folder=files.root)
    return _with_transcripts(files)


def _manifest_set(path: str, found: list[Path]) -> RecordingSet:
    manifests = {one.name: one for one in map(read_manifest, found)}
    if len(manifests) == 1 and os.path.isfile(path):  # noqa: PTH113 - any bytes
        manifests = {"train": next(iter(manifests.values()))}
    folder = Path(found[0]).parent
    stems = {one.file.stem for one in manifests.values()}
    others = [file.name for file in sorted(folder.iterdir()) if file.is_file() and file.stem not in stems]
    own = ("dict.", "label_descriptors.")
    unused = {} if os.path.isfile(path) else {"other files": [name for name in others if not name.startswith(own)]}  # noqa: PTH113 - any bytes
    files = FileSet(
        medium=RECORDINGS,
        path=path,
        root="",
        parts={name: SplitFiles(paths=one.paths) for name, one in manifests.items()},
        has_splits=not os.path.isfile(path),  # noqa: PTH113 - any bytes
        unused=unused,
    )
    return RecordingSet(files=files, manifests=manifests, folder=str(folder))


def _with_transcripts(files: FileSet) -> RecordingSet:
    """Add the transcripts of a LibriSpeech tree: its folders are speakers and chapters, not classes."""
    texts = [name for name in files.unused.get(_TEXTS, ()) if name.endswith(TRANSCRIPT_FILE)]
    if not texts:
        return RecordingSet(files=files, folder=files.root)
    words = read_librispeech(files.root, texts)
    parts = {name: SplitFiles(paths=part.paths) for name, part in files.parts.items()}
    lines = {name: words_of_tree(words, part.paths) for name, part in parts.items()}
    unused = files.unused | {_TEXTS: [name for name in files.unused[_TEXTS] if name not in set(texts)]}
    return RecordingSet(files=evolve(files, parts=parts, unused=unused), words=lines, folder=files.root)
