"""Image files by split, with their classes: a folder, a list of files or one file, and what was found and not used."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import field, frozen
from torch import Tensor

from d2v.core.data import Contents, DataError, Splits, escaped, name_keys
from d2v.core.suggestions import nearest
from d2v.vision.layout import SPLITS, split_name
from d2v.vision.reading import Reader

if TYPE_CHECKING:
    from PIL.Image import Image


@frozen(kw_only=True)
class Part:
    """The files of one split.

    Args:
        paths: relative to the root of the set.
        classes: their names in the order of their numbers; () = the files are unlabelled.
        labels: number of each file's class; () = unlabelled.
    """

    paths: list[str] = field(factory=list)
    classes: tuple[str, ...] = ()
    labels: list[int] = field(factory=list)

    @classmethod
    def of(cls, paths: list[str], names: list[str] | None) -> "Part":
        """A part by the names of its files' classes; None = unlabelled."""
        if names is None:
            return cls(paths=paths)
        classes = tuple(sorted(set(names)))
        numbers = {name: number for number, name in enumerate(classes)}
        return cls(paths=paths, classes=classes, labels=[numbers[name] for name in names])


@frozen(kw_only=True, eq=False)
class FileSet:
    """Image files where `data.path` points.

    Args:
        path: what the user gave.
        root: folder that paths are relative to.
        parts: by split; without splits all is `train`.
        has_splits: whether they are the user's splits.
        unused: names of what lies there beside, by kind.
        notes: for the user.
    """

    path: str
    root: str
    parts: dict[str, Part]
    has_splits: bool
    unused: dict[str, list[str]] = field(factory=dict)
    notes: tuple[str, ...] = ()

    def splits(self) -> Splits:
        """The parts by their use: one of `val` and `test` alone is what is reported on."""
        if {"val", "test"} <= self.parts.keys():
            return Splits(train="train", val="val", test="test")
        return Splits(train="train", test=next((name for name in ("val", "test") if name in self.parts), None))

    def classes(self, split: str) -> tuple[str, ...]:
        """Names of the classes of a split."""
        return self._part(split).classes

    def open(self, split: str | None, reader: Reader) -> "ImageFiles":
        """The pictures of a split, or of all of them without labels if there are several.

        Raises:
            DataError: if there is no such split, or no images are in it.
        """
        if split is None:
            whole = Part(paths=sorted(path for part in self.parts.values() for path in part.paths))
            part = whole if self.has_splits else self._part("train")
        else:
            part = self._part(split)
        if not part.paths:
            raise self.empty()
        return ImageFiles(self.root, part, reader, of_split=self.has_splits and split is not None)

    def numbering(self, split: str) -> tuple[str, ...]:
        """Classes that a split's are numbered by where no model says it: those of the training split.

        Raises:
            DataError: if the split has a class that the training split lacks.
        """
        own, known = self.classes(split), self.parts.get("train", Part()).classes
        if not own or not known:
            return own
        more, less = sorted(set(own) - set(known)), sorted(set(known) - set(own))
        if more:
            raise DataError(
                f"classes differ: only in {escaped(self.path)}, split {split}: {', '.join(more)}; only in train: "
                f"{', '.join(less) or 'none'}; give both the same"
            )
        return known

    def contents(self) -> Contents:
        """What is said before any work.

        Raises:
            DataError: if there are no images.
        """
        counts = {name: len(self.parts[name].paths) for name in SPLITS if name in self.parts}
        if not any(counts.values()):
            raise self.empty()
        train = self.parts.get("train") or next(iter(self.parts.values()))
        return Contents(
            path=self.path,
            splits=counts,
            classes=train.classes,
            unused={kind: tuple(names) for kind, names in sorted(self.unused.items()) if names},
            notes=(*self.notes, *self._remarks(train)),
            unit="images",
            listed_by=f"d2v data check-images {self.path}",
        )

    def empty(self) -> DataError:
        """The error of a set without images, which says what is there instead."""
        there = ", ".join(f"{kind} {len(names)}" for kind, names in sorted(self.unused.items()) if names)
        return DataError(
            f"{escaped(self.path)} holds no images" + (f"; not used: {there}" if there else ": there is no file")
        )

    def _remarks(self, train: Part) -> list[str]:
        found = [] if "train" in self.parts else ["there is no split train"]
        for name, part in self.parts.items():
            missing = sorted(set(train.classes) - set(part.classes))
            if missing and not part.classes:
                found.append(f"{name} has no classes")
            elif missing:
                found.append(f"{name} has no images of {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}")
        return found

    def _part(self, split: str) -> Part:
        known = split if split in self.parts else split_name(split)
        if known in self.parts:
            return self.parts[known]
        if not self.has_splits:
            raise DataError(
                f"data.path={self.path!r} has no split {split!r}: all of it is the split 'train', since no folder in "
                f"it is called {', '.join(SPLITS)}"
            )
        have = [name for name in SPLITS if name in self.parts]
        raise DataError(
            f"data.path={self.path!r} has no split {split!r}; it has {', '.join(have)}{nearest(split, have)}"
        )


class ImageFiles:
    """Pictures of files by their ids, which are places in the list of the part.

    Args:
        root: folder that the paths are relative to.
        part: the files.
        reader: what makes pictures of them.
        of_split: whether a folder that all of them lie in is that of their split.
    """

    def __init__(self, root: str, part: Part, reader: Reader, *, of_split: bool = False) -> None:
        self.root, self.reader, self.of_split = root, reader, of_split
        self.paths, self.classes, self._labels = part.paths, part.classes, part.labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, id: int) -> tuple["Image", int | None]:
        """Picture and class; raises `BrokenSampleError` if the file is not a whole picture."""
        return self.reader.read(os.path.join(self.root, self.paths[id])), self.label(id)  # noqa: PTH118 - any bytes

    def label(self, id: int) -> int | None:
        """Number of its class, without reading the picture."""
        return self._labels[id] if self._labels else None

    def name(self, id: int) -> str:
        """Its path relative to the root."""
        return Path(self.paths[id]).as_posix()

    def keys(self) -> Tensor:
        """`name_keys` of the paths relative to the folder of the split."""
        prefix = f"{self.paths[0].partition('/')[0]}/" if self.of_split and self.paths else ""
        shared = all(path.startswith(prefix) for path in self.paths)
        return name_keys(path.removeprefix(prefix) if shared else path for path in self.paths)

    def labels(self) -> Tensor:
        """Numbers of the classes of all, -1 = none."""
        return torch.tensor(self._labels) if self._labels else torch.full((len(self),), -1)

    def sizes(self, ids: Tensor) -> Tensor:
        """Sizes of some of the files in bytes, -1 = it cannot be read."""
        paths = (os.path.join(self.root, self.paths[id]) for id in ids.tolist())  # noqa: PTH118 - any bytes
        return torch.tensor([_size(path) for path in paths], dtype=torch.long)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - any bytes
    except OSError:
        return -1
