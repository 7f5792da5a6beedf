"""Convert the images that a user passes to pixels: paths, Pillow images, arrays and tensors.

Pillow is imported when the first image is converted.
"""

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from d2v.core.data import BrokenSampleError, item_error, item_list
from d2v.vision.reading import Reader

if TYPE_CHECKING:
    from PIL.Image import Image


def item_images(items: Iterable[Any], reader: Reader) -> Iterator[Tensor]:
    """Yield the pixels of images, uint8 `c h w`, in the order of the items; files are read like those of a folder.

    Args:
        items: paths, Pillow images, uint8 arrays `h w` or `h w c`, or uint8 tensors `h w` or `c h w`, with c = 1
            (grey), 3 (RGB) or 4 (RGB and alpha).
        reader: reads files and sets the channels of the result.

    Raises:
        DataError: naming the item, if one is broken or of another type; if there are none.

    >>> [image] = item_images([np.zeros((4, 6, 3), dtype=np.uint8)], Reader(channels=1))
    >>> image.shape
    torch.Size([1, 4, 6])
    """
    for index, item in enumerate(item_list(items)):
        try:
            is_file = isinstance(item, str | os.PathLike)
            image = reader.read(item) if is_file else reader.load(_image(item))
        except BrokenSampleError as error:
            raise item_error(index, item, error.reason) from error
        except (TypeError, ValueError, OSError, MemoryError) as error:
            raise item_error(index, item, str(error)) from error
        yield image


def _image(item: Any) -> "Image":
    from PIL import Image

    if isinstance(item, Image.Image):
        return item
    if not isinstance(item, np.ndarray | Tensor):
        raise TypeError("an image must be a path, a Pillow image, an array or a tensor")
    layout = "c h w" if isinstance(item, Tensor) else "h w c"
    values = item.cpu().numpy() if isinstance(item, Tensor) else item
    if values.ndim == 3 and isinstance(item, Tensor):
        values = values.transpose(1, 2, 0)
    fits = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3, 4))
    if values.dtype != np.uint8 or not fits or values.size == 0:
        raise ValueError(f"must be uint8 from 0 to 255, h w or {layout} with 1, 3 or 4 channels")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(values))
