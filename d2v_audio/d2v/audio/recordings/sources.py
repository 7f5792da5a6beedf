"""Open the recordings that `data.path` names: a folder, manifests, a list or one file, with lengths and transcripts.

This module provides splits, names and contents; `data` adds reading and batches. No recording is opened here.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from d2v.audio.recordings.endings import RECORDINGS
from d2v.audio.recordings.lengths import measured_lengths
from d2v.audio.recordings.manifests import Manifest, is_manifest, read_manifest
from d2v.audio.recordings.reading import Reader, entry_of
from d2v.audio.recordings.transcripts import LETTERS, TRANSCRIPT_FILE, Transcripts, read_librispeech, words_of_tree
from d2v.core.data import Contents, DataError, Splits
from d2v.core.data.folders import LISTS, Files, FileSet, SplitFiles, find_files
from d2v.core.data.folders.layout import split_name, splits_by_use, use_of

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
        manifests: with files of labels beside them, in the order of the recordings; () = there are none.
    """

    def __init__(
        self,
        root: str,
        files: SplitFiles,
        *,
        of_split: bool = False,
        lengths: Tensor | None = None,
        words: list[str | None] | None = None,
        manifests: Sequence[Manifest] = (),
    ) -> None:
        super().__init__(root, files, of_split=of_split)
        self.lengths, self.words, self.manifests = lengths, words, tuple(manifests)

    def sizes(self, ids: Tensor) -> Tensor:
        """Sizes of the given recordings in bytes, -1 = it cannot be read."""
        found = super().sizes(ids)
        for place, id in enumerate(ids.tolist()):
            if found[place] < 0 and (entry := entry_of(self.paths[id])) is not None:
                found[place] = entry[2]
        return found

    def absolute(self) -> list[str]:
        """Paths to open the recordings by."""
        return _below(self.root, self.paths)

    def transcripts(self, ending: str) -> Transcripts | None:
        """Transcripts in the units of an ending: `ltr` = letters; None = there are none.

        Raises:
            DataError: if a file of labels does not fit its manifest.
        """
        if self.manifests:
            found = [one.transcripts(ending) for one in self.manifests]
            parts = [one for one in found if one is not None]
            return Transcripts.joined(parts) if len(parts) == len(found) else None
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
        """The splits by their use.

        Args:
            train: split to train on, or several joined by `+`; None = the one that is named `train`, otherwise all that
                are named for training.

        Raises:
            DataError: if there is no such split, or those named for training share recordings.
        """
        parts = self.files.parts
        named = [name for name in parts if use_of(name) == "train"]
        if train is None and len(named) > 1 and not any(split_name(name) for name in named):
            train = "+".join(named)
            paths = self.open(train).absolute()
            if len(set(paths)) < len(paths):
                raise DataError(
                    f"data.path={self.files.path!r}: the splits {', '.join(named)} share recordings; choose one with "
                    "data.train_split"
                )
        elif train is not None:
            train = "+".join(self.names(train))
        return splits_by_use(parts, train)

    def names(self, split: str) -> list[str]:
        """Names of the parts that a split has: one, or several joined by `+`.

        Raises:
            DataError: if the split does not exist.
        """
        if split in self.files.parts or "+" not in split:
            return [self.files.part_name(split)]
        return [self.files.part_name(part) for part in split.split("+")]

    def has_training_split(self, train: str) -> bool:
        """Whether the split to train on, as `splits` returns it, exists."""
        return train in self.files.parts or "+" in train

    def open(self, split: str | None) -> Recordings:
        """The recordings of a split, or of several joined by `+`; None = of all splits.

        Raises:
            DataError: if the split does not exist or has no recordings.
        """
        names = list(self.files.parts) if split is None else self.names(split)
        if len(names) > 1:
            names = [name for name in names if self.files.parts[name].paths]
        parts = [self.files.selected(name) for name in names]
        if not parts:
            raise self.files.empty()
        manifests = [self.manifests[name] for name in names if name in self.manifests]
        roots = [one.root for one in manifests] or [self.files.root]
        if len(set(roots)) > 1:
            parts = [evolve(part, paths=_below(root, part.paths)) for root, part in zip(roots, parts, strict=True)]
        words = [line for name in names for line in self.words.get(name, ())]
        return Recordings(
            roots[0] if len(set(roots)) == 1 else "",
            _joined(parts),
            of_split=self.files.has_splits and len(names) == 1 and split is not None,
            lengths=torch.cat([one.lengths for one in manifests]) if manifests else None,
            words=words if all(name in self.words for name in names) else None,
            manifests=manifests,
        )

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

    def numbering(self, split: str | None, source: Recordings) -> tuple[str, ...]:
        """Class names that number a split if no model gives any: those of the training split, if it is not joined.

        Raises:
            DataError: if the split has a class that the training split lacks.
        """
        names = [] if split is None else self.names(split)
        return self.files.numbering(names[0]) if len(names) == 1 else source.classes

    def contents(self, sample_rate: int, train: str) -> Contents:
        """Describe the recordings; hours are known from manifests only.

        Args:
            sample_rate: in Hz.
            train: split to train on.

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
        if "+" in train:
            facts.append(f"training on {train}")
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


def _below(root: str, paths: Sequence[str]) -> list[str]:
    return [os.path.join(root, path) for path in paths]  # noqa: PTH118 - any bytes


def _joined(parts: Sequence[SplitFiles]) -> SplitFiles:
    """The files of several splits; they keep their classes only if all have the same."""
    same = all(part.classes == parts[0].classes for part in parts)
    return SplitFiles(
        paths=[path for part in parts for path in part.paths],
        classes=parts[0].classes if same else (),
        labels=[label for part in parts for label in part.labels] if same else [],
    )
