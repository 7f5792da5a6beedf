"""Image files by split, with their classes, from a folder, a list or a single file; and the files that are not used."""

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
class SplitFiles:
    """The files of one split.

    Args:
        paths: paths relative to the root of the set.
        classes: class names in the order of their numbers; () = the files are unlabelled.
        labels: class number of each file; () = unlabelled.
    """

    paths: list[str] = field(factory=list)
    classes: tuple[str, ...] = ()
    labels: list[int] = field(factory=list)

    @classmethod
    def of(cls, paths: list[str], names: list[str] | None) -> "SplitFiles":
        """Create a split from the class name of each file; None = unlabelled."""
        if names is None:
            return cls(paths=paths)
        classes = tuple(sorted(set(names)))
        numbers = {name: number for number, name in enumerate(classes)}
        return cls(paths=paths, classes=classes, labels=[numbers[name] for name in names])


@frozen(kw_only=True, eq=False)
class FileSet:
    """Image files that `data.path` names.

    Args:
        path: the path as the user gave it.
        root: folder that paths are relative to.
        parts: files by split; without splits all files are in `train`.
        has_splits: whether the user's data has splits.
        unused: names of the files and folders that are not used, by kind.
        notes: remarks for the user.
    """

    path: str
    root: str
    parts: dict[str, SplitFiles]
    has_splits: bool
    unused: dict[str, list[str]] = field(factory=dict)
    notes: tuple[str, ...] = ()

    def splits(self) -> Splits:
        """The splits by their use; if there is only one of `val` and `test`, results are reported on it."""
        if {"val", "test"} <= self.parts.keys():
            return Splits(train="train", val="val", test="test")
        return Splits(train="train", test=next((name for name in ("val", "test") if name in self.parts), None))

    def classes(self, split: str) -> tuple[str, ...]:
        """Class names of a split."""
        return self._files(split).classes

    def open(self, split: str | None, reader: Reader) -> "ImageFiles":
        """The images of a split; None = of all splits, without labels if there are several.

        Raises:
            DataError: if the split does not exist or has no images.
        """
        if split is None:
            everything = SplitFiles(paths=sorted(path for files in self.parts.values() for path in files.paths))
            files = everything if self.has_splits else self._files("train")
        else:
            files = self._files(split)
        if not files.paths:
            raise self.empty()
        return ImageFiles(self.root, files, reader, of_split=self.has_splits and split is not None)

    def numbering(self, split: str) -> tuple[str, ...]:
        """Class names that number a split if no model gives any: those of the training split.

        Raises:
            DataError: if the split has a class that the training split lacks.
        """
        own, known = self.classes(split), self.parts.get("train", SplitFiles()).classes
        if not own or not known:
            return own
        more, less = sorted(set(own) - set(known)), sorted(set(known) - set(own))
        if more:
            raise DataError(
                f"classes differ: only in {escaped(self.path)}, split {split}: {', '.join(more)}; only in train: "
                f"{', '.join(less) or 'none'}; use the same classes in both"
            )
        return known

    def contents(self) -> Contents:
        """Describe the data set; commands print this before any work.

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
        """The error for a set without images; it lists the files that are there instead."""
        there = ", ".join(f"{kind} {len(names)}" for kind, names in sorted(self.unused.items()) if names)
        return DataError(
            f"{escaped(self.path)} contains no images" + (f"; not used: {there}" if there else ": there is no file")
        )

    def _remarks(self, train: SplitFiles) -> list[str]:
        found = [] if "train" in self.parts else ["there is no split train"]
        for name, files in self.parts.items():
            missing = sorted(set(train.classes) - set(files.classes))
            if missing and not files.classes:
                found.append(f"{name} has no classes")
            elif missing:
                found.append(f"{name} has no images of {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}")
        return found

    def _files(self, split: str) -> SplitFiles:
        known = split if split in self.parts else split_name(split)
        if known in self.parts:
            return self.parts[known]
        if not self.has_splits:
            raise DataError(
                f"data.path={self.path!r} has no split {split!r}: all images are the split 'train', since no folder in "
                f"it is named {', '.join(SPLITS)}"
            )
        have = [name for name in SPLITS if name in self.parts]
        raise DataError(
            f"data.path={self.path!r} has no split {split!r}; it has {', '.join(have)}{nearest(split, have)}"
        )


class ImageFiles:
    """Images of a list of files; an id is the index in that list.

    Args:
        root: folder that the paths are relative to.
        files: the files of a split.
        reader: reads the files.
        of_split: whether a folder that contains all files is the folder of their split.
    """

    def __init__(self, root: str, files: SplitFiles, reader: Reader, *, of_split: bool = False) -> None:
        self.root, self.reader, self.of_split = root, reader, of_split
        self.paths, self.classes, self._labels = files.paths, files.classes, files.labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, id: int) -> tuple["Image", int | None]:
        """Return image and class; raise `BrokenSampleError` if the file is not a complete image."""
        return self.reader.read(os.path.join(self.root, self.paths[id])), self.label(id)  # noqa: PTH118 - any bytes

    def label(self, id: int) -> int | None:
        """Class number, without reading the image."""
        return self._labels[id] if self._labels else None

    def name(self, id: int) -> str:
        """Path relative to the root."""
        return Path(self.paths[id]).as_posix()

    def keys(self) -> Tensor:
        """`name_keys` of the paths relative to the folder of the split."""
        prefix = f"{self.paths[0].partition('/')[0]}/" if self.of_split and self.paths else ""
        shared = all(path.startswith(prefix) for path in self.paths)
        return name_keys(path.removeprefix(prefix) if shared else path for path in self.paths)

    def labels(self) -> Tensor:
        """Class numbers of all images, -1 = none."""
        return torch.tensor(self._labels) if self._labels else torch.full((len(self),), -1)

    def sizes(self, ids: Tensor) -> Tensor:
        """Sizes of the given files in bytes, -1 = it cannot be read."""
        paths = (os.path.join(self.root, self.paths[id]) for id in ids.tolist())  # noqa: PTH118 - any bytes
        return torch.tensor([_size(path) for path in paths], dtype=torch.long)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - any bytes
    except OSError:
        return -1
