"""Images from folders and built-in sets as batches.

Reading and collating only: order, sharing out and broken files are `d2v.core.data`'s. Pillow and torchvision are
imported when they are needed, so that this module can be imported without the extra.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from attrs import frozen
from torch import Tensor

from d2v.core.data import BrokenSampleError, DataError, Loader, sample_seed
from d2v.core.model import Batch
from d2v.core.suggestions import nearest
from d2v.vision import builtin

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageDataConfig", "ImageFolder"]

_EXTENSIONS = frozenset(["bmp", "gif", "jpeg", "jpg", "pbm", "pgm", "png", "ppm", "tif", "tiff", "webp"])
_BUILTIN = {"fashion-mnist": builtin.fashion_mnist, "digits": builtin.digits}
_TRAINING = ("train", "pretrain")
# ImageNet's, and for grey pictures the mean over its channels.
_MEAN_STD = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


class ImageFolder:
    """The image files below a folder, at any depth, in the order of their paths; ids are places in that order.

    Hidden files and folders are left out.
    Where no image lies in the folder itself, the names of its subfolders are the classes, in sorted order. Transparent
    pixels lie on white, EXIF rotation is applied, 16 bits become 8, and of an animation the first frame is read.

    Args:
        folder: where to look. Files with other endings than those of images are not looked at.
        channels: 3 = RGB, 1 = grey.

    Raises:
        DataError: if the folder cannot be read or holds no images.
    """

    def __init__(self, folder: Path, *, channels: Literal[1, 3] = 3) -> None:
        self.folder = folder
        self.channels = channels
        self.paths = _image_files(folder)
        flat = any(os.sep not in path for path in self.paths)
        self.classes: list[str] = [] if flat else _subfolders(folder)
        self._numbers = {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, id: int) -> tuple["Image", int | None]:
        """Picture and class; raises `BrokenSampleError` if the file is not a whole picture."""
        path = self.folder / self.paths[id]
        return _read(path, self.channels), self._numbers.get(Path(self.paths[id]).parts[0])


@frozen(kw_only=True)
class ImageDataConfig:
    """Images of a folder or a built-in set; the defaults are the published preprocessing.

    Args:
        path: a folder, with a subfolder for each split or without (then all of it is the split `train`), or the name of
            a built-in set: `fashion-mnist` (splits pretrain, choose, report) or `digits` (train, test).
        size: height and width in pixels of what the model sees.
        channels: 3 = RGB, 1 = grey.
        crop_area: share of the picture's area that a random crop covers; None = no random crop, as in evaluation.
        crop_ratio: range of width by height of a crop.
        flip: probability of a horizontal flip.
        resize: shorter side before the central crop of evaluation; None = size * 256 / 224.
        num_workers: reading processes.

    >>> loader = ImageDataConfig(path="digits", size=8, resize=8, channels=1, num_workers=0).build("test", batch_size=5)
    >>> next(iter(loader)).source.shape
    torch.Size([5, 1, 8, 8])
    """

    path: str
    size: int = 224
    channels: Literal[1, 3] = 3
    crop_area: tuple[float, float] | None = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    resize: int | None = None
    num_workers: int = 4

    def build(
        self,
        split: str,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool | None = None,
    ) -> Loader[tuple[Tensor, int | None]]:
        """The batches of a split.

        `training` = without end, shuffled and augmented; None = if the split is `train` or `pretrain`.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: if the folder, the split or the built-in set is not there or holds no images.
            ValueError: if a built-in set has no such split.
        """
        from d2v.vision import modality

        modality.require_extra()
        training = split in _TRAINING if training is None else training
        source = _open(self.path, split, self.channels)
        return Loader(
            _Images(source, self._transform(training)),
            _collate,
            batch_size=batch_size,
            seed=seed,
            endless=training,
            num_workers=self.num_workers,
            rank=rank,
            world_size=world_size,
        )

    def _transform(self, training: bool) -> Callable[[Any], Tensor]:
        from torchvision.transforms import v2  # type: ignore[import-untyped, unused-ignore]

        bicubic = v2.InterpolationMode.BICUBIC
        steps: list[Any] = []
        if training and self.crop_area is not None:
            steps += [v2.RandomResizedCrop(self.size, self.crop_area, self.crop_ratio, interpolation=bicubic)]
        else:
            shorter = round(self.size * 256 / 224) if self.resize is None else self.resize
            steps += [v2.Resize(shorter, interpolation=bicubic), v2.CenterCrop(self.size)]
        if training:
            steps += [v2.RandomHorizontalFlip(self.flip)]
        steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*_MEAN_STD[self.channels])]
        return v2.Compose(steps)  # type: ignore[no-any-return, unused-ignore]


class _Arrays:
    def __init__(self, images: Tensor, labels: Tensor, channels: int) -> None:
        self.images, self.labels, self.channels = images, labels, channels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, id: int) -> tuple["Image", int | None]:
        from PIL import Image

        return _in_channels(Image.fromarray(self.images[id, 0].numpy()), self.channels), int(self.labels[id])


class _Images:
    def __init__(self, source: "ImageFolder | _Arrays", transform: Callable[[Any], Tensor]) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def get(self, id: int, *, seed: int, epoch: int) -> tuple[Tensor, int | None]:
        image, label = self.source[id]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the accelerators as well, and those are not put back.
            torch.default_generator.manual_seed(sample_seed(seed=seed, epoch=epoch, id=id))
            return self.transform(image), label


def _collate(samples: list[tuple[Tensor, int | None]], ids: Tensor) -> Batch:
    labels = [label for _, label in samples if label is not None]
    return Batch(
        source=torch.stack([image for image, _ in samples]),
        ids=ids,
        labels=torch.tensor(labels) if len(labels) == len(samples) else None,
    )


def _open(path: str, split: str, channels: Literal[1, 3]) -> "ImageFolder | _Arrays":
    if path in _BUILTIN:
        return _Arrays(*_BUILTIN[path](split), channels)
    folder = Path(path)
    if not folder.is_dir():
        names = ", ".join(_BUILTIN)
        raise DataError(f"data.path={path!r} is neither a folder nor a built-in set ({names}){nearest(path, _BUILTIN)}")
    parts = _subfolders(folder)
    if split in parts:
        source = ImageFolder(folder / split, channels=channels)
        if split != "train" and source.classes and "train" in parts:
            _same_classes(source, folder / "train")
        return source
    if split != "train" or {"val", "test"} & set(parts):
        raise DataError(f"data.path={path!r} has no folder {split!r}{nearest(split, parts)}")
    return ImageFolder(folder, channels=channels)


def _same_classes(source: ImageFolder, train: Path) -> None:
    # Numbers of classes are places in sorted lists: lists that differ would give the same class two numbers.
    known = set(_subfolders(train))
    more, less = sorted(set(source.classes) - known), sorted(known - set(source.classes))
    if more or less:
        raise DataError(
            f"class folders differ: only in {source.folder}: {', '.join(more) or 'none'}; "
            f"only in {train}: {', '.join(less) or 'none'}; give both the same"
        )


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> DataError:
    return DataError(f"{error.filename} cannot be read: {error.strerror}; mend its permissions or the path")


def _image_files(folder: Path) -> list[str]:
    def stop(error: OSError) -> None:
        raise _unreadable(error) from error

    found = []
    for parent, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        images = [name for name in names if name[0] != "." and name.rpartition(".")[2].lower() in _EXTENSIONS]
        found += [os.path.relpath(Path(parent, name), folder) for name in images]
    if not found:
        raise DataError(f"{folder} holds no images; files that end in {', '.join(sorted(_EXTENSIONS))} are read")
    return sorted(found)


def _read(path: Path, channels: int) -> "Image":
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            return _in_channels(ImageOps.exif_transpose(image), channels)
    except MemoryError:
        raise
    except Exception as error:  # decoders fail on strangers' files in every way
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BrokenSampleError(str(path), reason or type(error).__name__) from error


def _in_channels(image: "Image", channels: int) -> "Image":
    import numpy as np
    from PIL import Image

    if image.mode[0] in "IF":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"mode {image.mode} has no known range of values; store it with 8 or 16 bits")
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB" if channels == 3 else "L")
