"""Manifests of the field: a root folder in the first line, then a path and a number of samples in each line.

A path may also be `ARCHIVE.zip:OFFSET:LENGTH`. Labels are in files beside it, line by line.
"""

import os
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from d2v.audio.recordings.reading import entry_of
from d2v.audio.recordings.transcripts import LETTERS, WORDS, Transcripts, read_lines
from d2v.core.data import DataError, escaped

_TRIED = 10  # files that are looked for, to notice that all have moved


@frozen(kw_only=True, eq=False)
class Manifest:
    """A manifest.

    Args:
        file: the manifest.
        root: folder that its paths are relative to.
        paths: as written.
        lengths: samples of each file at its own rate, Long `n`.
    """

    file: Path
    root: str
    paths: list[str]
    lengths: Tensor

    @property
    def name(self) -> str:
        """Name of its split, as in `train.tsv`."""
        return self.file.stem

    def beside(self, ending: str) -> Path:
        """Path of a file of labels."""
        return self.file.with_suffix(f".{ending}")

    def label_lines(self, ending: str) -> list[str] | None:
        """Lines of a file of labels; None = there is no such file.

        Raises:
            DataError: if it cannot be read, or has another number of lines than the manifest.
        """
        path = self.beside(ending)
        if not path.is_file():
            return None
        lines = read_lines(path)
        if len(lines) != len(self.paths):
            raise DataError(
                f"{escaped(str(path))} has {len(lines)} lines, but {self.file.name} has {len(self.paths)} recordings; "
                "write both again from the same files"
            )
        return lines

    def transcripts(self, ending: str) -> Transcripts | None:
        """Transcripts from `.ltr` or files like it; letters are also spelled from the words of `.wrd`.

        Raises:
            DataError: as `label_lines`.
        """
        lines, spelled = self.label_lines(ending), ending != WORDS
        if lines is None and ending == LETTERS:
            lines, spelled = self.label_lines(WORDS), False
        if lines is None:
            return None
        return Transcripts(lines=lines, spelled=spelled, letters=ending == LETTERS, source=str(self.beside(ending)))


def is_manifest(path: str | Path) -> bool:
    """Return whether a file is a manifest: no tab in its first line; a path, a tab and a number in the second."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - any bytes
            first, second = file.readline(), file.readline()
    except OSError:
        return False
    path, _, count = second.rstrip("\r\n").rpartition("\t")
    return bool(first.strip()) and "\t" not in first and bool(path) and count.isdigit()


def read_manifest(file: Path) -> Manifest:
    """Read a manifest.

    Raises:
        DataError: naming the line, if one is not a path and a number of samples; if none of the files exists.
    """
    try:
        text = os.fsdecode(file.read_bytes())
    except OSError as error:
        raise DataError(f"{escaped(str(file))} cannot be read: {error.strerror}") from error
    first, *lines = text.split("\n")
    paths, lengths = [], []
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        path, _, count = line.rstrip("\r").rpartition("\t")
        if not path or not count.isdigit():
            raise DataError(f"{escaped(str(file))}, line {number}: expected a path, a tab and a number of samples")
        paths.append(path)
        lengths.append(int(count))
    return Manifest(
        file=file, root=_root(file, first.strip(), paths), paths=paths, lengths=torch.tensor(lengths, dtype=torch.long)
    )


def _root(file: Path, stated: str, paths: list[str]) -> str:
    """The root of a manifest; a relative one is looked for beside the manifest, then in the working folder."""
    roots = [stated] if os.path.isabs(stated) else [str(file.parent / stated), stated]  # noqa: PTH117 - any bytes
    tried = paths[:_TRIED]
    for root in roots:
        if not tried or any(os.path.exists(_on_disk(root, path)) for path in tried):  # noqa: PTH110 - any bytes
            return root
    raise DataError(
        f"{escaped(str(file))}: {escaped(_on_disk(roots[0], tried[0]))} does not exist, nor do the next files; if they "
        "have moved, correct the folder in the first line, or write the manifest again (d2v data manifest)"
    )


def _on_disk(root: str, path: str) -> str:
    entry = entry_of(path)
    return os.path.join(root, path if entry is None else entry[0])  # noqa: PTH118 - any bytes
