"""Read image files and images of Pillow as 8-bit pixels in the model's channels, or report why they are broken.

Pillow is imported when the first image is read. An error of any type affects only its own file.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from attrs import frozen
from torch import Tensor

from d2v.core.data import BrokenSampleError
from d2v.core.data.folders.regular import check_regular
from d2v.vision.endings import formats
from d2v.vision.pixels import is_turned, jpeg_pixels, pixels_of

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = Literal[1, 3]

_UPPER_HALF = 32768  # of the range of 16 bits


@frozen(kw_only=True)
class Reader:
    """Reader of images.

    8-bit files have values up to 255. Deeper files need a known range, since 12 or 14 bits are often stored in 16, and
    nothing in the file says so: white is `max_value`, or 65535 for a 16-bit file with a value in the upper half of that
    range. If the range is unknown, the file counts as broken, and the reason names the key to set; it never becomes a
    dark image. A dark file of true 16 bits is refused too; `max_value=65535` reads it.

    Args:
        channels: 3 = RGB, 1 = grey.
        max_megapixels: files with more pixels (millions) are broken; checked before they are decoded.
        max_value: value of white in files of more than 8 bits, integers or floats; None = by the rule above.

    >>> from PIL import Image
    >>> twelve_bits = Image.fromarray(np.array([[0, 4095]], dtype=np.uint16))
    >>> Reader(channels=1, max_value=4095).convert(twelve_bits).getpixel((1, 0))
    255
    """

    channels: Channels = 3
    max_megapixels: float = 200.0
    max_value: float | None = None

    def read(self, path: str | os.PathLike[str]) -> Tensor:
        """Read an image file; see `load`.

        Raises:
            BrokenSampleError: if the file is not a complete image, is too large or has an unknown range.
        """
        from PIL import Image, UnidentifiedImageError

        name = os.fspath(path)
        try:
            check_regular(name)
            with self.limits(), Image.open(path, formats=formats()) as image:
                self._check_size(image)
                pixels = jpeg_pixels(image, self.channels)
                return self.load(image) if pixels is None else pixels
        except UnidentifiedImageError as error:
            raise BrokenSampleError(name, "not an image" if _size(name) else "the file is empty") from error
        except Exception as error:  # decoders raise anything on unknown files
            raise BrokenSampleError(name, self.reason(error)) from error

    def load(self, image: "Image") -> Tensor:
        """Return the pixels of an opened image, uint8 `c h w`.

        Applies the EXIF rotation, and takes the first frame of an animation.

        Raises:
            ValueError: if the image is too large, or its range of values is unknown or exceeded.
        """
        from PIL import ImageOps

        self._check_size(image)
        white, is_deep = _stated_white(image), _has_deep_colours(image)
        image.load()
        self._check_size(image)  # icons contain images of several sizes
        # Pillow copies the image even if there is nothing to do.
        turned = ImageOps.exif_transpose(image) if is_turned(image) else image
        return pixels_of(self.convert(turned, white=white, is_deep=is_deep))

    def convert(self, image: "Image", *, white: float | None = None, is_deep: bool = False) -> "Image":
        """Convert an image of any mode to 8-bit RGB or grey; transparent pixels become white.

        Args:
            image: a loaded image.
            white: value of white that the file states, for more than 8 bits; None = not stated.
            is_deep: whether the values are the high bytes of 16-bit colours.

        Raises:
            ValueError: if the range of values is unknown or exceeded.
        """
        from PIL import Image

        if image.mode[0] in "IF":
            image = Image.fromarray(self._as_bytes(image, white))
        elif is_deep:
            self._check_high_bytes(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        mode = "RGB" if self.channels == 3 else "L"
        return image if image.mode == mode else image.convert(mode)

    @contextmanager
    def limits(self) -> Iterator[None]:
        """Set Pillow's pixel limit to this reader's inside the context; it also applies to embedded images."""
        from PIL import Image

        before = Image.MAX_IMAGE_PIXELS
        with warnings.catch_warnings(action="ignore"):  # minor damage in files that can still be read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = int(min(self.max_megapixels * 1e6, 2**62))
            try:
                yield
            finally:
                Image.MAX_IMAGE_PIXELS = before

    def reason(self, error: Exception) -> str:
        """Describe why an image could not be read."""
        from PIL import Image

        if isinstance(error, MemoryError):
            return "not enough memory"
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            pixels = re.search(r"\((\d+) pixels", str(error))
            return self._too_many(int(pixels[1]) / 1e6) if pixels else str(error)
        return getattr(error, "strerror", None) or str(error) or type(error).__name__

    def _check_size(self, image: "Image") -> None:
        megapixels = image.width * image.height / 1e6
        if megapixels > self.max_megapixels:
            raise ValueError(f"{image.width}x{image.height} pixels, {self._too_many(megapixels)}")

    def _too_many(self, megapixels: float) -> str:
        return f"{megapixels:.4g} megapixels, exceed data.max_megapixels={self.max_megapixels:g}"

    def _as_bytes(self, image: "Image", white: float | None) -> Any:
        values = np.asarray(image)
        low, high = values.min(), values.max()
        white = self.max_value if white is None else white
        if white is None:
            if image.mode == "F" or low < 0 or high > 65535:
                raise ValueError(
                    f"values from {low:g} to {high:g} of mode {image.mode} have no known range; set data.max_value to "
                    "the value of white"
                )
            if 0 < high < _UPPER_HALF:
                raise ValueError(
                    f"16-bit values up to {high:g}: their range is unknown; set data.max_value to the value of white, "
                    "for example 4095 for 12 bits or 65535 for 16"
                )
            white = 65535.0
        if not (low >= 0 and high <= white):  # NaN as well
            raise ValueError(f"values from {low:g} to {high:g} are not within 0 to data.max_value={white:g}")
        return np.round(values / np.float32(white / 255)).astype(np.uint8)

    def _check_high_bytes(self, image: "Image") -> None:
        """Check 16-bit colours, of which Pillow keeps only the high bytes."""
        if self.max_value == 65535:
            return
        high = max(extreme[1] for extreme in image.getextrema()[:3])  # type: ignore[index]  # of several channels
        if self.max_value is not None or 0 < high < _UPPER_HALF >> 8:
            raise ValueError(
                "only the high bytes of 16-bit colours are read, so they must use the full range: set "
                "data.max_value=65535 if they do, otherwise store the file with 8 bits"
            )


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size  # noqa: PTH116 - any bytes may be in a name
    except OSError:
        return 1


def _stated_white(image: "Image") -> float | None:
    """Return the value of white for more than 8 bits if the file states it; call before loading."""
    for tile in getattr(image, "tile", ()):
        if tile[0] == "ppm":  # scaled to 16 bits from the range in the header
            return 65535.0
        if "I;12" in str(tile[3]):  # packed in a TIFF
            return 4095.0
    return None


def _has_deep_colours(image: "Image") -> bool:
    """Return whether Pillow will return only the high bytes of 16-bit channels; call before loading."""
    return image.mode[0] not in "IF" and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
