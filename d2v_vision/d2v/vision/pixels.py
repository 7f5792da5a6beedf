"""Images as uint8 tensors `c h w`, from those of Pillow and from JPEG files."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def pixels_of(image: "Image") -> Tensor:
    """Return the pixels of a grey or RGB image, uint8 `c h w`.

    >>> from PIL import Image
    >>> pixels_of(Image.new("RGB", (4, 2))).shape
    torch.Size([3, 2, 4])
    """
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


def image_of(pixels: Tensor) -> "Image":
    """Return pixels, uint8 `c h w` with one or three channels, as an image of Pillow.

    >>> image_of(torch.zeros(3, 2, 4, dtype=torch.uint8)).size
    (4, 2)
    """
    from PIL import Image

    return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy())


def is_turned(image: "Image") -> bool:
    """Return whether the file says that the image must be rotated or mirrored."""
    from PIL.ExifTags import Base

    return bool(image.getexif().get(Base.Orientation, 1) != 1)


def jpeg_pixels(image: "Image", channels: int) -> Tensor | None:
    """Decode an opened JPEG file by torchvision, which takes less time than Pillow and gives the same pixels.

    torchvision 0.29 deprecates this decoder: it moves to another package. Without it, Pillow decodes.

    Args:
        image: a file that Pillow opened and did not load yet.
        channels: of the result.

    Returns:
        uint8 `c h w`; None = leave it to Pillow: another format or colours, a rotated image, or a broken file.
    """
    is_plain = image.mode == "L" or (image.mode == "RGB" and channels == 3)
    if image.format != "JPEG" or not is_plain or is_turned(image):
        return None
    file: Any = image.fp  # type: ignore[attr-defined]  # files that Pillow opens have it
    file.seek(0)
    content = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    file.seek(0)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped, unused-ignore]

            decoded: Tensor = decode_jpeg(content, ImageReadMode.GRAY if image.mode == "L" else ImageReadMode.RGB)
        except (ImportError, RuntimeError):  # Pillow reads some broken files, and says why it cannot read the others
            return None
    return decoded.expand(channels, -1, -1)
