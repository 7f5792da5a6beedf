"""Open the image set that `data.path` names: files, a built-in set or a torchvision set.

This module provides splits, class names and contents; `data` adds augmentation and batches.
"""

from collections.abc import Callable
from typing import Protocol

from attrs import frozen
from torch import Tensor

from d2v.core.data import Contents, DataError, Splits, name_keys
from d2v.core.data.folders import LISTS, find_files
from d2v.core.suggestions import nearest
from d2v.vision import builtin
from d2v.vision.files import IMAGES, ImageFileSet
from d2v.vision.reading import Reader
from d2v.vision.torchvision_sets import PREFIX, TorchvisionSet, torchvision_splits


class ImageSource(Protocol):
    """Images with ids 0 to n-1; can be pickled for workers."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their numbers; empty if the images are unlabelled."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, id: int) -> tuple[Tensor, int | None]:
        """Return pixels, uint8 `c h w`, and class; raise `BrokenSampleError` if the image cannot be read."""
        ...

    def label(self, id: int) -> int | None:
        """Class number, if possible without reading the image."""
        ...

    def name(self, id: int) -> str:
        """Name of the image for the user."""
        ...

    def keys(self) -> Tensor:
        """`name_keys` of all images, Long `n`; they do not depend on the location of the data or the split's folder."""
        ...

    def labels(self) -> Tensor | None:
        """Class numbers of all images, Long `n`, -1 = none; None if images would have to be read."""
        ...

    def sizes(self, ids: Tensor) -> Tensor | None:
        """Sizes of the given files in bytes, Long like `ids`, -1 = it cannot be read; None if they are not files."""
        ...


class ImageSet(Protocol):
    """All splits of the images that a path names."""

    def splits(self) -> Splits:
        """The splits by their use."""
        ...

    def classes(self, split: str) -> tuple[str, ...]:
        """Class names of a split, if possible without reading images."""
        ...

    def numbering(self, split: str) -> tuple[str, ...]:
        """Class names that number a split if no model gives any; raise `DataError` if a class is not one of them."""
        ...

    def open(self, split: str | None, reader: Reader) -> ImageSource:
        """The images of a split; None = all of a folder or a list, or the test split of another set.

        Raises:
            DataError: if the split does not exist or has no images.
        """
        ...

    def contents(self) -> Contents:
        """Describe the data set; commands print this before any work."""
        ...


def open_set(path: str) -> ImageSet:
    """Open the image set that a path names.

    Raises:
        DataError: if it does not exist or cannot be used.
    """
    if path in _BUILTIN:
        return _BuiltinSet(path)
    if path.startswith(PREFIX):
        return _TorchvisionSets(path)
    found = find_files(path, IMAGES)
    if found is None:
        raise _no_data(path)
    return ImageFileSet(found)


def _no_data(path: str) -> DataError:
    names = ", ".join(_BUILTIN)
    return DataError(
        f"data.path={path!r} is neither a folder nor an image or a list of images ({', '.join(LISTS)}), nor a built-in "
        f"set ({names}), nor {PREFIX}NAME:FOLDER{nearest(path, _BUILTIN)}"
    )


@frozen
class _Builtin:
    read: Callable[[str], tuple[Tensor, Tensor]]
    splits: Splits
    classes: tuple[str, ...]


_BUILTIN = {
    "fashion-mnist": _Builtin(
        builtin.fashion_mnist,
        Splits(train="train", val="val", test="test"),
        builtin.FASHION_MNIST_CLASSES,
    ),
    "digits": _Builtin(builtin.digits, Splits(train="train", test="test"), builtin.DIGITS_CLASSES),
}


class _BuiltinSet:
    def __init__(self, name: str) -> None:
        self.name, self._set = name, _BUILTIN[name]

    def splits(self) -> Splits:
        return self._set.splits

    def classes(self, split: str) -> tuple[str, ...]:
        del split
        return self._set.classes

    numbering = classes

    def open(self, split: str | None, reader: Reader) -> ImageSource:
        splits = self._set.splits
        known = _names(splits)
        if split is not None and split not in known:
            raise DataError(
                f"data.path={self.name!r} has no split {split!r}; it has {', '.join(known)}{nearest(split, known)}"
            )
        return _Arrays(self.name, split or splits.test or splits.train, reader.channels)

    def contents(self) -> Contents:
        counts = {split: len(self._set.read(split)[1]) for split in _names(self._set.splits)}
        return Contents(path=self.name, splits=counts, classes=self._set.classes, unit="images")


class _Arrays:
    """Grey images of a built-in set."""

    def __init__(self, name: str, split: str, channels: int) -> None:
        self.images, self.numbers = _BUILTIN[name].read(split)
        self.classes = _BUILTIN[name].classes
        self.channels = channels
        self.prefix = f"{name}/{split}"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, id: int) -> tuple[Tensor, int | None]:
        return self.images[id].expand(self.channels, -1, -1), self.label(id)

    def label(self, id: int) -> int:
        return int(self.numbers[id])

    def name(self, id: int) -> str:
        return f"{self.prefix}/{id}"

    def keys(self) -> Tensor:
        return name_keys(map(self.name, range(len(self))))

    def labels(self) -> Tensor:
        return self.numbers

    def sizes(self, ids: Tensor) -> None:
        del ids  # built-in arrays never change


class _TorchvisionSets:
    def __init__(self, path: str) -> None:
        self.path = path

    def splits(self) -> Splits:
        return torchvision_splits(self.path)

    def classes(self, split: str) -> tuple[str, ...]:
        return self.open(split, Reader()).classes

    numbering = classes

    def open(self, split: str | None, reader: Reader) -> ImageSource:
        return TorchvisionSet(self.path, split, reader=reader)

    def contents(self) -> Contents:
        """Note splits that cannot be opened: a user may have downloaded only one of them."""
        counts: dict[str, int] = {}
        classes: tuple[str, ...] = ()
        errors = []
        for split in _names(self.splits()):
            try:
                opened = self.open(split, Reader())
            except DataError as error:
                errors.append((split, error))
                continue
            counts[split] = len(opened)
            classes = classes or opened.classes
        if not counts:
            raise errors[0][1]
        notes = tuple(f"split {split} cannot be opened" for split, _ in errors)
        return Contents(path=self.path, splits=counts, classes=classes, notes=notes, unit="images")


def _names(splits: Splits) -> list[str]:
    return [name for name in (splits.train, splits.val, splits.test) if name is not None]
