"""Image preprocessing: resize, crop, flip and normalise."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from d2v.vision.pixels import image_of, pixels_of

if TYPE_CHECKING:
    from attrs import Attribute

# By number of channels: ImageNet's values, and their mean for grey images.
MEAN = {3: (0.485, 0.456, 0.406), 1: (0.449,)}
STD = {3: (0.229, 0.224, 0.225), 1: (0.226,)}


_LONG = 8  # aspect ratio from which images are cropped before resizing


class ResizedMiddle:
    """Resize the shorter side and crop the centre square, as torchvision does.

    For a long image, only the pixels of the square are resized: a strip of 3,000,000x2 pixels would otherwise become
    384,000,000x256. Pillow also weights the source pixels around a box, so the result differs only in the rounding
    between rows and columns.

    Args:
        shorter: pixels of the shorter side after resizing.
        size: side of the square in pixels, at most `shorter`.

    >>> ResizedMiddle(32, 28)(torch.zeros(1, 2, 100_000, dtype=torch.uint8)).shape
    torch.Size([1, 28, 28])
    """

    def __init__(self, shorter: int, size: int) -> None:
        from torchvision.transforms import v2  # type: ignore[import-untyped, unused-ignore]

        self.shorter, self.size = shorter, size
        bicubic = v2.InterpolationMode.BICUBIC
        self.whole = v2.Compose([v2.Resize(shorter, interpolation=bicubic), v2.CenterCrop(size)])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return pixels of `size` x `size`, uint8 `c h w` as those given; resized by Pillow, as published."""
        from PIL import Image

        image = image_of(pixels)
        width, height = image.size
        if max(width, height) <= _LONG * min(width, height):
            return pixels_of(self.whole(image))
        left, right = self._span(width, min(width, height))
        top, bottom = self._span(height, min(width, height))
        square = (self.size, self.size)
        return pixels_of(image.resize(square, Image.Resampling.BICUBIC, box=(left, top, right, bottom)))

    def _span(self, length: int, shortest: int) -> tuple[float, float]:
        """Start and end of the square along one side of the source."""
        resized = int(self.shorter * length / shortest)
        first = round((resized - self.size) / 2)
        return first * length / resized, (first + self.size) * length / resized


class RandomCrop:
    """Crop a random part of an image and resize it: torchvision's draws, on pixels.

    Tensors of 8 bits are resized faster than images of Pillow (`benchmarks/loading.py`). One value in fifty differs,
    nearly all by 1 of 255.

    Args:
        size: side of the result in pixels.
        area: range of the crop's area, as fractions of the image.
        ratio: range of the crop's aspect ratio, width by height.

    >>> RandomCrop(28, (0.2, 1.0), (3 / 4, 4 / 3))(torch.zeros(3, 40, 30, dtype=torch.uint8)).shape
    torch.Size([3, 28, 28])
    """

    def __init__(self, size: int, area: tuple[float, float], ratio: tuple[float, float]) -> None:
        from torchvision.transforms import v2  # type: ignore[import-untyped, unused-ignore]

        self.drawn = v2.RandomResizedCrop(size, area, ratio)
        self.size = [size, size]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return pixels of `size` x `size`."""
        from torchvision.transforms import v2

        part, bicubic = self.drawn.make_params([pixels]), v2.InterpolationMode.BICUBIC
        cropped: Tensor = v2.functional.resized_crop_image(pixels, **part, size=self.size, interpolation=bicubic)
        return cropped


class RandomFlip:
    """Flip images horizontally with a probability, drawn as torchvision draws it.

    >>> RandomFlip(1.0)(torch.tensor([[[1, 2, 3]]])).tolist()
    [[[3, 2, 1]]]
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the pixels, `c h w`, or their mirror image."""
        return pixels.flip(-1) if torch.rand(1) < self.probability else pixels


class Preparation:
    """Convert the pixels of images to the model's input.

    Args:
        geometry: transforms of pixels, uint8 `c h w`, to the model's size, in this order.
        drawn: whether a transform is random.
        unchanged: height and width of images for which `geometry` is skipped, since it would not change them.
        mean: for each channel or for all, subtracted from values in 0 to 1.
        std: for each channel or for all, the divisor after that.
    """

    def __init__(
        self,
        geometry: Sequence[Callable[[Tensor], Tensor]],
        *,
        drawn: bool,
        unchanged: tuple[int, int] | None,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self.geometry, self.drawn, self.unchanged = geometry, drawn, unchanged
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    @classmethod
    def of(
        cls,
        size: int,
        shorter: int,
        *,
        crop: tuple[tuple[float, float], tuple[float, float]] | None,
        flip: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> "Preparation":
        """The published preprocessing.

        Args:
            size: side of the result in pixels.
            shorter: pixels of the shorter side before the centre crop.
            crop: ranges of area and aspect ratio of a random crop; None = centre crop.
            flip: probability of a horizontal flip.
            mean: see the class.
            std: see the class.
        """
        steps: list[Callable[[Tensor], Tensor]] = [
            ResizedMiddle(shorter, size) if crop is None else RandomCrop(size, *crop)
        ]
        if flip > 0:
            steps.append(RandomFlip(flip))
        drawn = crop is not None or flip > 0
        unchanged = (size, size) if shorter == size and not drawn else None
        return cls(steps, drawn=drawn, unchanged=unchanged, mean=mean, std=std)

    def __call__(self, pixels: Tensor, seed: int | None) -> Tensor:
        """Transform an image, uint8 `c h w`, and normalise it; the seed determines random transforms."""
        if seed is not None:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed: it seeds the accelerators too, whose state is not restored.
                torch.default_generator.manual_seed(seed)
                pixels = self._transformed(pixels)
        elif pixels.shape[-2:] != self.unchanged:
            pixels = self._transformed(pixels)
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.mul_(1 / 255).sub_(self.mean).div_(self.std)

    def _transformed(self, pixels: Tensor) -> Tensor:
        for step in self.geometry:
            pixels = step(pixels)
        return pixels


def is_range(pair: tuple[float, float]) -> bool:
    """Return whether two numbers are a range above 0."""
    return len(pair) == 2 and 0 < pair[0] <= pair[1]


def is_area_range(pair: tuple[float, float]) -> bool:
    """Return whether two numbers are a range of fractions of an image, above 0 and up to 1."""
    return is_range(pair) and pair[1] <= 1


def for_channels(config: Any, attribute: "Attribute[Any]", values: tuple[float, ...] | None) -> None:
    """Validate a mean or standard deviation: one number, or one for each of the channels of a configuration."""
    if values is not None and (len(values) not in (1, config.channels) or not all(map(math.isfinite, values))):
        raise ValueError(f"{attribute.name}={values!r} must be one number, or {config.channels}, one for each channel")
    if values is not None and attribute.name == "std" and min(values) <= 0:
        raise ValueError(f"std={values!r} must be above 0")
