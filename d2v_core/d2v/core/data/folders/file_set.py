"""Files of a medium by split, with their classes, and the files that are not used."""

import os
import re
from pathlib import Path

import torch
from attrs import field, frozen
from torch import Tensor

from d2v.core.data.broken import DataError
from d2v.core.data.config import Splits
from d2v.core.data.contents import Contents
from d2v.core.data.folders.layout import SPLITS, split_name, splits_by_use
from d2v.core.data.folders.medium import Medium
from d2v.core.data.identity import name_keys
from d2v.core.data.names import escaped
from d2v.core.suggestions import nearest


@frozen(kw_only=True)
class SplitFiles:
    """The files of one split.

    Args:
        paths: paths relative to the root of the set.
        classes: class names in the order of their numbers; () = the files are unlabelled.
        labels: class number of each file; () = unlabelled.
        more: further columns of a list, by name: a text for each file.
    """

    paths: list[str] = field(factory=list)
    classes: tuple[str, ...] = ()
    labels: list[int] = field(factory=list)
    more: dict[str, list[str]] = field(factory=dict)

    @classmethod
    def of(cls, paths: list[str], names: list[str] | None, more: dict[str, list[str]] | None = None) -> "SplitFiles":
        """Create a split from the class name of each file; None = unlabelled."""
        if names is None:
            return cls(paths=paths, more=more or {})
        classes = tuple(sorted(set(names)))
        numbers = {name: number for number, name in enumerate(classes)}
        return cls(paths=paths, classes=classes, labels=[numbers[name] for name in names], more=more or {})


@frozen(kw_only=True, eq=False)
class FileSet:
    """Files that `data.path` names.

    Args:
        medium: what counts as a file.
        path: the path as the user gave it.
        root: folder that paths are relative to.
        parts: files by split; without splits all files are in `train`.
        has_splits: whether the user's data has splits.
        unused: names of the files and folders that are not used, by kind.
        notes: remarks for the user.
    """

    medium: Medium
    path: str
    root: str
    parts: dict[str, SplitFiles]
    has_splits: bool
    unused: dict[str, list[str]] = field(factory=dict)
    notes: tuple[str, ...] = ()

    def splits(self) -> Splits:
        """The splits by their use; if there is only one of `val` and `test`, results are reported on it."""
        return splits_by_use(self.parts)

    def classes(self, split: str) -> tuple[str, ...]:
        """Class names of a split."""
        return self.part(split).classes

    def selected(self, split: str | None) -> SplitFiles:
        """The files of a split; None = of all splits, without labels if there are several.

        Raises:
            DataError: if the split does not exist or has no files.
        """
        if split is None:
            everything = SplitFiles(paths=sorted(path for files in self.parts.values() for path in files.paths))
            files = everything if self.has_splits else self.part("train")
        else:
            files = self.part(split)
        if not files.paths:
            raise self.empty()
        return files

    def numbering(self, split: str) -> tuple[str, ...]:
        """Class names that number a split if no model gives any: those of the training split.

        Raises:
            DataError: if the split has a class that the training split lacks.
        """
        own, known = self.classes(split), self.parts.get(self.splits().train, SplitFiles()).classes
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
            DataError: if there are no files.
        """
        counts = {name: len(files.paths) for name, files in self.parts.items()}
        if not any(counts.values()):
            raise self.empty()
        train = self.parts.get(self.splits().train) or next(iter(self.parts.values()))
        return Contents(
            path=self.path,
            splits=counts,
            classes=train.classes,
            unused={kind: tuple(names) for kind, names in sorted(self.unused.items()) if names},
            notes=(*self.notes, *self._remarks(train)),
            unit=self.medium.unit,
            listed_by=f"{self.medium.check} {self.path}",
        )

    def empty(self) -> DataError:
        """The error for a set without files of the medium; it lists the files that are there instead."""
        there = ", ".join(f"{kind} {len(names)}" for kind, names in sorted(self.unused.items()) if names)
        return DataError(
            f"{escaped(self.path)} contains no {self.medium.unit}"
            + (f"; not used: {there}" if there else ": there is no file")
        )

    def _remarks(self, train: SplitFiles) -> list[str]:
        found = [] if self.splits().train in self.parts else ["there is no split train"]
        for name, files in self.parts.items():
            missing = sorted(set(train.classes) - set(files.classes))
            if missing and not files.classes:
                found.append(f"{name} has no classes")
            elif missing:
                found.append(
                    f"{name} has no {self.medium.unit} of {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
                )
        return found

    def part(self, split: str) -> SplitFiles:
        """The files of a split; raises `DataError` as `part_name`."""
        return self.parts[self.part_name(split)]

    def part_name(self, split: str) -> str:
        """The name of a split, which may be spelled in another way.

        Raises:
            DataError: if the split does not exist.
        """
        use = split_name(split)
        alike = [name for name in self.parts if _plain(name) == _plain(split)]
        alike += [name for name in self.parts if use is not None and split_name(name) == use]
        if split in self.parts or alike:
            return split if split in self.parts else alike[0]
        if not self.has_splits:
            raise DataError(
                f"data.path={self.path!r} has no split {split!r}: all {self.medium.unit} are the split 'train', since "
                f"no folder in it is named {', '.join(SPLITS)}"
            )
        have = list(self.parts)
        raise DataError(
            f"data.path={self.path!r} has no split {split!r}; it has {', '.join(have)}{nearest(split, have)}"
        )


class Files:
    """Files of one split; an id is the index in its list.

    Args:
        root: folder that the paths are relative to.
        files: the files of a split.
        of_split: whether a folder that contains all files is the folder of their split.
    """

    def __init__(self, root: str, files: SplitFiles, *, of_split: bool = False) -> None:
        self.root, self.of_split = root, of_split
        self.paths, self.classes, self._labels = files.paths, files.classes, files.labels

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, id: int) -> str:
        """Path to open the file by."""
        return os.path.join(self.root, self.paths[id])  # noqa: PTH118 - any bytes

    def label(self, id: int) -> int | None:
        """Class number, without reading the file."""
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
        """Class numbers of all files, -1 = none."""
        return torch.tensor(self._labels) if self._labels else torch.full((len(self),), -1)

    def sizes(self, ids: Tensor) -> Tensor:
        """Sizes of the given files in bytes, -1 = it cannot be read."""
        return torch.tensor([_size(self.path(id)) for id in ids.tolist()], dtype=torch.long)


def _plain(name: str) -> str:
    """The name of a split without case and separators: `dev-other` is `dev_other`."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - any bytes
    except OSError:
        return -1
