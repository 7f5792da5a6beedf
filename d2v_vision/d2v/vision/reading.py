"""Image files and what torchvision gives as 8-bit pictures in the channels of the model, or as broken with a reason.

Pillow is imported when a picture is read. Whatever is wrong with a file, it is that file's alone.
"""

import errno
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from attrs import frozen

from d2v.core.data import BrokenSampleError
from d2v.vision.endings import formats

if TYPE_CHECKING:
    from PIL.Image import Image

_UPPER_HALF = 32768  # of the range of 16 bits
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@frozen(kw_only=True)
class Reader:
    """How pictures are read.

    A file of 8 bits has values up to 255. More bits are read by a stated range, since 12 or 14 bits are often stored in
    16, and nothing in the file says so: white is `max_value`, or 65535 for a file of 16 bits that has a value in the
    upper half of that range. A file whose range stays unknown is broken, with the key to set as its reason: it never
    becomes a dark picture. A dark file of true 16 bits is refused in the same way; `max_value=65535` reads it.

    Args:
        channels: 3 = RGB, 1 = grey.
        max_megapixels: files with more pixels (millions) are broken; checked before they are decoded.
        max_value: what white is in files of more than 8 bits, in integers or floats; None = by the rule above.

    >>> from PIL import Image
    >>> twelve_bits = Image.fromarray(np.array([[0, 4095]], dtype=np.uint16))
    >>> Reader(channels=1, max_value=4095).convert(twelve_bits).getpixel((1, 0))
    255
    """

    channels: Literal[1, 3] = 3
    max_megapixels: float = 200.0
    max_value: float | None = None

    def read(self, path: str | os.PathLike[str]) -> "Image":
        """An image file; see `picture`.

        Raises:
            BrokenSampleError: if it is not a whole picture, is too large or has an unknown range.
        """
        from PIL import Image, UnidentifiedImageError

        name = os.fspath(path)
        try:
            _check_kind(name)
            with self.limits(), Image.open(path, formats=formats()) as image:
                return self.picture(image)
        except UnidentifiedImageError as error:
            raise BrokenSampleError(name, "not an image" if _size(name) else "the file is empty") from error
        except Exception as error:  # decoders fail on unknown files in every way
            raise BrokenSampleError(name, self.reason(error)) from error

    def picture(self, image: "Image") -> "Image":
        """An opened picture in the form of `convert`; EXIF rotation is applied, of an animation it is the first frame.

        Raises:
            ValueError: if it is too large, or its range of values is unknown or exceeded.
        """
        from PIL import ImageOps

        self._check_size(image)
        white, is_deep = _stated_white(image), _has_deep_colours(image)
        image.load()
        self._check_size(image)  # icons have pictures of several sizes inside
        return self.convert(ImageOps.exif_transpose(image), white=white, is_deep=is_deep)

    def convert(self, image: "Image", *, white: float | None = None, is_deep: bool = False) -> "Image":
        """A picture of any mode as RGB or grey with 8 bits, on white where it is transparent.

        Args:
            image: in memory.
            white: what the file itself says that white is, in numbers of more than 8 bits; None = nothing.
            is_deep: whether these are the high bytes of colours with 16 bits.

        Raises:
            ValueError: if its range of values is unknown or exceeded.
        """
        from PIL import Image

        if image.mode[0] in "IF":
            image = Image.fromarray(self._as_bytes(image, white))
        elif is_deep:
            self._check_high_bytes(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB" if self.channels == 3 else "L")

    @contextmanager
    def limits(self) -> Iterator[None]:
        """While it lasts, Pillow's own limit of pixels is this one; it holds for pictures inside of others as well."""
        from PIL import Image

        before = Image.MAX_IMAGE_PIXELS
        with warnings.catch_warnings(action="ignore"):  # of small damage in files that are read all the same
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = int(min(self.max_megapixels * 1e6, 2**62))
            try:
                yield
            finally:
                Image.MAX_IMAGE_PIXELS = before

    def reason(self, error: Exception) -> str:
        """Why a picture could not be read, in words."""
        from PIL import Image

        if isinstance(error, MemoryError):
            return "there is not enough memory for it"
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            pixels = re.search(r"\((\d+) pixels", str(error))
            return self._too_many(int(pixels[1]) / 1e6) if pixels else str(error)
        return getattr(error, "strerror", None) or str(error) or type(error).__name__

    def _check_size(self, image: "Image") -> None:
        megapixels = image.width * image.height / 1e6
        if megapixels > self.max_megapixels:
            raise ValueError(f"{image.width}x{image.height} pixels, {self._too_many(megapixels)}")

    def _too_many(self, megapixels: float) -> str:
        return f"{megapixels:.4g} megapixels, are more than data.max_megapixels={self.max_megapixels:g}"

    def _as_bytes(self, image: "Image", white: float | None) -> Any:
        values = np.asarray(image)
        low, high = values.min(), values.max()
        white = self.max_value if white is None else white
        if white is None:
            if image.mode == "F" or low < 0 or high > 65535:
                raise ValueError(
                    f"values from {low:g} to {high:g} of mode {image.mode} have no known range; set data.max_value to "
                    "what is white"
                )
            if 0 < high < _UPPER_HALF:
                raise ValueError(
                    f"values of 16 bits that end at {high:g}: their range is unknown; set data.max_value to what is "
                    "white, say 4095 for 12 bits, 65535 for all 16"
                )
            white = 65535.0
        if not (low >= 0 and high <= white):  # NaN as well
            raise ValueError(f"values from {low:g} to {high:g} are not within 0 to data.max_value={white:g}")
        return np.round(values / np.float32(white / 255)).astype(np.uint8)

    def _check_high_bytes(self, image: "Image") -> None:
        """Of colours with 16 bits Pillow keeps the high byte of each."""
        if self.max_value == 65535:
            return
        high = max(extreme[1] for extreme in image.getextrema()[:3])  # type: ignore[index]  # of several channels
        if self.max_value is not None or 0 < high < _UPPER_HALF >> 8:
            raise ValueError(
                "colours of 16 bits are read by their high bytes, so only the full range can be: set "
                "data.max_value=65535 if it is that, else store the file with 8 bits"
            )


def _check_kind(name: str) -> None:
    """Opening a pipe would wait for somebody to write into it."""
    kind = stat.S_IFMT(os.stat(name).st_mode)  # noqa: PTH116 - the name may be anything
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'no regular file')}, not a file")


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size  # noqa: PTH116
    except OSError:
        return 1


def _stated_white(image: "Image") -> float | None:
    """What white is in numbers of more than 8 bits, where the file says it; before it is loaded."""
    for tile in getattr(image, "tile", ()):
        if tile[0] == "ppm":  # stretched to 16 bits from the range of the header
            return 65535.0
        if "I;12" in str(tile[3]):  # packed in a TIFF
            return 4095.0
    return None


def _has_deep_colours(image: "Image") -> bool:
    """Whether Pillow will give the high bytes of several channels with 16 bits each; before it is loaded."""
    return image.mode[0] not in "IF" and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
