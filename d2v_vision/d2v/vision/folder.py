"""Image files below a folder, one by one as pictures with their classes.

Pillow is imported when a picture is read. Nothing here knows splits, augmentation or batches.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from d2v.core.data import BrokenSampleError, DataError, name_keys

if TYPE_CHECKING:
    from PIL.Image import Image

_EXTENSIONS = frozenset(["bmp", "gif", "jpeg", "jpg", "pbm", "pgm", "png", "ppm", "tif", "tiff", "webp"])


class ImageFolder:
    """The image files below a folder, at any depth, in the order of their paths; ids are places in that order.

    Hidden files and folders are left out.
    Where no image lies in the folder itself, the names of its subfolders are the classes, in sorted order. Transparent
    pixels lie on white, EXIF rotation is applied, 16 bits become 8, and of an animation the first frame is read.

    Args:
        folder: where to look. Files with other endings than those of images are not looked at.
        channels: 3 = RGB, 1 = grey.
        root: names of samples are paths relative to it; None = to the folder.
        labelled: False = subfolders are no classes.

    Raises:
        DataError: if the folder cannot be read or holds no images.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cat").mkdir()
    ...     Image.new("RGB", (4, 4)).save(Path(folder) / "cat" / "1.png")
    ...     images = ImageFolder(Path(folder))
    >>> images.classes, images.name(0), images.label(0)
    (('cat',), 'cat/1.png', 0)
    """

    def __init__(
        self, folder: Path, *, channels: Literal[1, 3] = 3, root: Path | None = None, labelled: bool = True
    ) -> None:
        self.folder = folder
        self.channels = channels
        self.paths = _image_files(folder)
        self.classes = class_folders(folder) if labelled else ()
        self._numbers = {name: number for number, name in enumerate(self.classes)}
        self._above = "" if root is None or root == folder else f"{folder.relative_to(root).as_posix()}/"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, id: int) -> tuple["Image", int | None]:
        """Picture and class; raises `BrokenSampleError` if the file is not a whole picture."""
        return read_image(self.folder / self.paths[id], self.channels), self.label(id)

    def label(self, id: int) -> int | None:
        """Number of its class, without reading the picture."""
        return self._numbers.get(self.paths[id].partition(os.sep)[0])

    def name(self, id: int) -> str:
        """Its path relative to `root`."""
        return self._above + Path(self.paths[id]).as_posix()

    def keys(self) -> Tensor:
        """`name_keys` of the paths relative to the folder."""
        return name_keys(Path(path).as_posix() for path in self.paths)

    def sizes(self, ids: Tensor) -> Tensor:
        """Sizes of some of the files in bytes, -1 = it cannot be read."""
        return torch.tensor([file_size(self.folder / self.paths[id]) for id in ids.tolist()], dtype=torch.long)

    def labels(self) -> Tensor:
        """Numbers of the classes of all, -1 = none."""
        return torch.tensor([-1 if label is None else label for label in map(self.label, range(len(self)))])


def file_size(path: Path) -> int:
    """Size of a file in bytes; -1 if it cannot be read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the classes, () where an image lies in the folder itself."""
    try:
        flat = any(_is_image(path.name) and not path.is_dir() for path in folder.iterdir())
    except OSError as error:
        raise unreadable(error) from error
    return () if flat else tuple(subfolders(folder))


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> DataError:
    """The error of a data set for one of the system."""
    return DataError(f"{error.filename} cannot be read: {error.strerror}; mend its permissions or the path")


def _is_image(name: str) -> bool:
    return name[0] != "." and name.rpartition(".")[2].lower() in _EXTENSIONS


def _image_files(folder: Path) -> list[str]:
    def stop(error: OSError) -> None:
        raise unreadable(error) from error

    found = []
    for parent, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [os.path.relpath(Path(parent, name), folder) for name in names if _is_image(name)]
    if not found:
        raise DataError(f"{folder} holds no images; files that end in {', '.join(sorted(_EXTENSIONS))} are read")
    return sorted(found)


def read_image(path: str | os.PathLike[str], channels: int) -> "Image":
    """An image file as RGB (3) or grey (1); raises `BrokenSampleError` if it is not a whole picture."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            return in_channels(ImageOps.exif_transpose(image), channels)
    except MemoryError:
        raise
    except Exception as error:  # decoders fail on strangers' files in every way
        told = getattr(error, "strerror", None) or str(error)
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else told
        raise BrokenSampleError(str(path), reason or type(error).__name__) from error


def in_channels(image: "Image", channels: int) -> "Image":
    """A picture of any mode as RGB (3) or grey (1) with 8 bits, on white where it is transparent."""
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
