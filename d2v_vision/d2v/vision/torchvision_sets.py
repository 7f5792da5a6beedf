"""Data sets of torchvision by name, from files that the user has downloaded.

torchvision is imported when a set is opened, and never downloads anything.
"""

import inspect
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from d2v.core.data import BrokenSampleError, DataError, Splits, name_keys
from d2v.core.suggestions import nearest
from d2v.vision.reading import Reader

PREFIX = "torchvision:"
# Sets with a `split` argument other than train and test; torchvision does not list the names without opening a set.
_OWN_SPLITS = {
    "Country211": Splits(train="train", val="valid", test="test"),
    "DTD": Splits(train="train", val="val", test="test"),
    "FGVCAircraft": Splits(train="train", val="val", test="test"),
    "Flowers102": Splits(train="train", val="val", test="test"),
    "ImageNet": Splits(train="train", test="val"),
    "Imagenette": Splits(train="train", test="val"),
    "OxfordIIITPet": Splits(train="trainval", test="test"),
    "PCAM": Splits(train="train", val="val", test="test"),
    "Places365": Splits(train="train-standard", test="val"),
    "RenderedSST2": Splits(train="train", val="val", test="test"),
}


class TorchvisionSet:
    """A classification set of `torchvision.datasets` as images with classes.

    Args:
        path: `torchvision:NAME:FOLDER`; FOLDER is the set's `root`.
        split: a split of `torchvision_splits`, or another of the set; None = test if there is one, otherwise train.
        reader: converts the images.

    Raises:
        DataError: if the set or the split does not exist, its files are missing, or it has no images with classes.
    """

    def __init__(self, path: str, split: str | None, *, reader: Reader) -> None:
        name, root = _name_and_root(path)
        splits = torchvision_splits(path)
        split = split or splits.test or splits.train
        self.prefix = f"{PREFIX}{name}/{split}"
        self.reader = reader
        self._set = _opened(path, root, split, _class(name))
        self._labels = _known_labels(self._set)
        self._check()
        self.classes = self._class_names()

    def __len__(self) -> int:
        return len(self._set)

    def __getitem__(self, id: int) -> tuple[Tensor, int | None]:
        """Return pixels, uint8 `c h w`, and class; raise `BrokenSampleError` if the image cannot be read."""
        try:
            with self.reader.limits():
                image, label = self._set[id]
                return self.reader.load(image), _number(label)
        except Exception as error:  # sets raise different errors
            raise BrokenSampleError(self.name(id), self.reader.reason(error)) from error

    def label(self, id: int) -> int | None:
        """Class number; the image is read if the set has no list of labels."""
        return self[id][1] if self._labels is None else self._labels[id]

    def name(self, id: int) -> str:
        """Set, split and id."""
        return f"{self.prefix}/{id}"

    def keys(self) -> Tensor:
        """`name_keys` of set, split, id and, if the set has a list of labels, label."""
        labels: Sequence[object] = self._labels or [""] * len(self)
        return name_keys(f"{self.name(id)}/{label}" for id, label in enumerate(labels))

    def sizes(self, ids: Tensor) -> None:
        """None: the files of a set are not known."""

    def labels(self) -> Tensor | None:
        """Class numbers of all images, -1 = none; None if the set has no list of labels."""
        known = self._labels
        return None if known is None else torch.tensor([-1 if label is None else label for label in known])

    def _check(self) -> None:
        from PIL import Image

        try:
            sample = self._set[0]
        except Exception:  # the loader counts broken images
            return
        try:
            image, label = sample
            _number(label)
        except (TypeError, ValueError):
            image = None
        if not isinstance(image, Image.Image):
            raise DataError(f"{self.prefix} has no images with one class each; use a classification set")

    def _class_names(self) -> tuple[str, ...]:
        labels = [label for label in self._labels or () if label is not None]
        if self._labels is not None and not labels:
            return ()
        named = getattr(self._set, "classes", None)
        if named:
            # ImageNet has several words for a class, and two classes named "crane".
            names = [", ".join(name) if isinstance(name, tuple | list) else str(name) for name in named]
            return tuple(f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names))
        return tuple(map(str, range(max(labels, default=-1) + 1)))


def torchvision_splits(path: str) -> Splits:
    """Return the splits of a set, from its `train` or `split` argument; without either, all images are `train`.

    Raises:
        DataError: if the set does not exist.
    """
    name, _ = _name_and_root(path)
    if not {"train", "split"} & _arguments(_class(name)).keys():
        return Splits(train="train")
    return _OWN_SPLITS.get(name, Splits(train="train", test="test"))


def _name_and_root(path: str) -> tuple[str, str]:
    name, _, root = path.removeprefix(PREFIX).partition(":")
    if not name or not root:
        raise DataError(f"data.path={path!r} must be {PREFIX}NAME:FOLDER, for example {PREFIX}FashionMNIST:data")
    return name, root


def _arguments(kind: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind).parameters)


def _class(name: str) -> type:
    from torchvision import datasets  # type: ignore[import-untyped, unused-ignore]

    # A fixed list, so that a name cannot reach anything else in the module.
    kinds = {known: getattr(datasets, known) for known in datasets.__all__}
    known = {name: kind for name, kind in kinds.items() if isinstance(kind, type) and "root" in _arguments(kind)}
    if name not in known:
        raise DataError(f"torchvision has no data set {name!r}{nearest(name, known)}")
    kind: type = known[name]
    needed = [
        parameter.name
        for parameter in _arguments(kind).values()
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
        and parameter.name not in ("root", "split")
    ]
    if needed:
        raise DataError(f"torchvision's {name} cannot be opened by name: it needs {', '.join(needed)}")
    return kind


def _opened(path: str, root: str, split: str, kind: type) -> Any:
    arguments = _arguments(kind)
    options: dict[str, Any] = {"root": root}
    if "download" in arguments:
        options["download"] = False
    if "train" in arguments or "split" not in arguments:
        known = ["train", "test"] if "train" in arguments else ["train"]
        if split not in known:
            raise DataError(
                f"data.path={path!r} has no split {split!r}; it has {', '.join(known)}{nearest(split, known)}"
            )
        options |= {"train": split == "train"} if "train" in arguments else {}
    else:
        options["split"] = split
    try:
        opened = kind(**options)
        len(opened)
    except Exception as error:  # sets raise different errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"data.path={path!r}, split {split!r}, cannot be opened: {reason} (d2v downloads nothing: get the files "
            f"first, for most sets by torchvision.datasets.{kind.__name__}({root!r}, download=True))"
        ) from error
    return opened


def _known_labels(opened: Any) -> list[int | None] | None:
    """Return the labels of all images from the list that most sets have; None = this set has none."""
    for name in ("targets", "labels", "_labels", "y", "_samples"):
        values = getattr(opened, name, None)
        try:
            if values is not None and len(values) == len(opened):
                return [_number(value[-1] if name == "_samples" else value) for value in values]
        except TypeError:  # not class numbers
            continue
    return None


def _number(label: Any) -> int | None:
    number = -1 if label is None else operator.index(label)
    return None if number < 0 else number
