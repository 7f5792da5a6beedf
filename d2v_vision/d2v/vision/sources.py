"""What `data.path` names, as pictures by their ids: an image folder, a built-in set or one of torchvision.

Splits and names of classes are told here; augmentation and batches are `data`'s.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from attrs import frozen
from torch import Tensor

from d2v.core.data import DataError, Splits, name_keys
from d2v.core.suggestions import nearest
from d2v.vision import builtin
from d2v.vision.folder import ImageFolder, class_folders, in_channels, subfolders, unreadable
from d2v.vision.torchvision_sets import PREFIX, TorchvisionSet, torchvision_splits

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = Literal[1, 3]
_SPLITS = ("train", "val", "test")


class ImageSource(Protocol):
    """Pictures by their ids 0 to n-1; can be pickled for workers."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; empty if pictures are unlabelled."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, id: int) -> tuple["Image", int | None]:
        """Picture and class; raises `BrokenSampleError` if it cannot be read."""
        ...

    def label(self, id: int) -> int | None:
        """Number of its class, if possible without reading the picture."""
        ...

    def name(self, id: int) -> str:
        """What the user knows it by."""
        ...

    def keys(self) -> Tensor:
        """`name_keys` of all, Long `n`: the same wherever the data lie, and whatever folder the split is in."""
        ...

    def labels(self) -> Tensor | None:
        """Numbers of the classes of all, Long `n`, -1 = none; None if pictures would have to be read."""
        ...

    def sizes(self, ids: Tensor) -> Tensor | None:
        """Sizes of some of the files in bytes, Long like `ids`, -1 = it cannot be read; None if they are no files."""
        ...


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


class _Arrays:
    def __init__(self, name: str, split: str, channels: int) -> None:
        self.images, self.numbers = _BUILTIN[name].read(split)
        self.classes = _BUILTIN[name].classes
        self.channels = channels
        self.prefix = f"{name}/{split}"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, id: int) -> tuple["Image", int | None]:
        from PIL import Image

        return in_channels(Image.fromarray(self.images[id, 0].numpy()), self.channels), self.label(id)

    def label(self, id: int) -> int:
        return int(self.numbers[id])

    def name(self, id: int) -> str:
        return f"{self.prefix}/{id}"

    def keys(self) -> Tensor:
        return name_keys(map(self.name, range(len(self))))

    def labels(self) -> Tensor:
        return self.numbers

    def sizes(self, ids: Tensor) -> None:
        del ids  # arrays that never change


def open_source(path: str, split: str | None, channels: Channels) -> ImageSource:
    """The pictures of a split; None = all of a folder, or the test split of a set that has no folder.

    Raises:
        DataError: if the path, the split or the set is not there or holds no images.
    """
    if path in _BUILTIN:
        splits = _BUILTIN[path].splits
        known = [name for name in (splits.train, splits.val, splits.test) if name is not None]
        if split is not None and split not in known:
            raise _no_split(path, split, known)
        return _Arrays(path, split or splits.test or splits.train, channels)
    if path.startswith(PREFIX):
        return TorchvisionSet(path, split, convert=in_channels, channels=channels)
    return _open_folder(path, split, channels)


def class_names(path: str, split: str, channels: Channels) -> tuple[str, ...]:
    """Names of the classes of a split, without looking at every file of a folder.

    Raises:
        DataError: as `open_source`.
    """
    if path in _BUILTIN or path.startswith(PREFIX):
        return open_source(path, split, channels).classes
    return class_folders(_split_folder(path, split))


def splits_of(path: str) -> Splits:
    """The parts of a data set.

    Raises:
        DataError: if the path or the set is not there.
    """
    if path in _BUILTIN:
        return _BUILTIN[path].splits
    if path.startswith(PREFIX):
        return torchvision_splits(path)
    parts = set(subfolders(_folder(path)))
    if {"val", "test"} <= parts:
        return Splits(train="train", val="val", test="test")
    return Splits(train="train", test=next((name for name in ("val", "test") if name in parts), None))


def _open_folder(path: str, split: str | None, channels: Channels) -> ImageFolder:
    root = _folder(path)
    if split is None:
        # Folders of splits are no classes.
        return ImageFolder(root, channels=channels, labelled=not _has_splits(subfolders(root)))
    return ImageFolder(_split_folder(path, split), channels=channels, root=root)


def _split_folder(path: str, split: str) -> Path:
    root = _folder(path)
    parts = subfolders(root)
    if not _has_splits(parts):
        if split != "train":
            raise DataError(
                f"data.path={path!r} has no split {split!r}: all of it is the split 'train', since there is no folder "
                f"{', '.join(_SPLITS)} in it"
            )
        return root
    if split not in parts:
        raise _no_split(path, split, parts)
    return root / split


def same_classes(path: str, split: str, classes: tuple[str, ...]) -> None:
    """Nothing, or an error if a split's class folders are not those of the training split.

    Numbers of classes are places in sorted lists: lists that differ would give the same class two numbers.

    Raises:
        DataError: naming the folders that only one of them has.
    """
    if path in _BUILTIN or path.startswith(PREFIX) or split == "train" or not classes:
        return
    train = Path(path) / "train"
    if not train.is_dir():
        return
    known = set(class_folders(train))
    more, less = sorted(set(classes) - known), sorted(known - set(classes))
    if more or less:
        raise DataError(
            f"class folders differ: only in {Path(path) / split}: {', '.join(more) or 'none'}; "
            f"only in {train}: {', '.join(less) or 'none'}; give both the same"
        )


def _folder(path: str) -> Path:
    folder = Path(path)
    try:
        found = folder.is_dir()
    except OSError as error:
        raise unreadable(error) from error
    if not found:
        names = ", ".join(_BUILTIN)
        raise DataError(
            f"data.path={path!r} is neither a folder nor a built-in set ({names}) nor {PREFIX}NAME:FOLDER"
            f"{nearest(path, _BUILTIN)}"
        )
    return folder


def _has_splits(parts: list[str]) -> bool:
    return any(name in parts for name in _SPLITS)


def _no_split(path: str, split: str, known: list[str]) -> DataError:
    return DataError(
        f"data.path={path!r} has no split {split!r}; it has {', '.join(known[:10])}{nearest(split, known)}"
    )
