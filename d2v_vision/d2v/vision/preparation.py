"""Image preprocessing: resize, crop, flip and normalise."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

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

    >>> from PIL import Image
    >>> ResizedMiddle(32, 28)(Image.new("L", (100_000, 2))).size
    (28, 28)
    """

    def __init__(self, shorter: int, size: int) -> None:
        from torchvision.transforms import v2  # type: ignore[import-untyped, unused-ignore]

        self.shorter, self.size = shorter, size
        bicubic = v2.InterpolationMode.BICUBIC
        self.whole = v2.Compose([v2.Resize(shorter, interpolation=bicubic), v2.CenterCrop(size)])

    def __call__(self, image: Any) -> Any:
        """Return an image of `size` x `size`."""
        width, height = image.size
        if max(width, height) <= _LONG * min(width, height):
            return self.whole(image)
        from PIL import Image

        left, right = self._span(width, min(width, height))
        top, bottom = self._span(height, min(width, height))
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=(left, top, right, bottom))

    def _span(self, length: int, shortest: int) -> tuple[float, float]:
        """Start and end of the square along one side of the source."""
        resized = int(self.shorter * length / shortest)
        first = round((resized - self.size) / 2)
        return first * length / resized, (first + self.size) * length / resized


class Preparation:
    """Convert an image to the model's input.

    Args:
        geometry: transform of an image to the model's size.
        drawn: whether the transform is random.
        unchanged: size in pixels of images for which `geometry` is skipped, since it would not change them; it takes
            as long as the rest.
        mean: for each channel or for all, subtracted from values in 0 to 1.
        std: for each channel or for all, the divisor after that.
    """

    def __init__(
        self,
        geometry: Callable[[Any], Any],
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
        from torchvision.transforms import v2

        steps: list[Any] = [ResizedMiddle(shorter, size)]
        if crop is not None:
            steps = [v2.RandomResizedCrop(size, *crop, interpolation=v2.InterpolationMode.BICUBIC)]
        if flip > 0:
            steps += [v2.RandomHorizontalFlip(flip)]
        drawn = crop is not None or flip > 0
        unchanged = (size, size) if shorter == size and not drawn else None
        return cls(v2.Compose(steps), drawn=drawn, unchanged=unchanged, mean=mean, std=std)

    def __call__(self, image: Any, seed: int | None) -> Tensor:
        """Transform an image; the seed determines random transforms."""
        if seed is not None:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed: it seeds the accelerators too, whose state is not restored.
                torch.default_generator.manual_seed(seed)
                image = self.geometry(image)
        elif image.size != self.unchanged:
            image = self.geometry(image)
        pixels = torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)
        return pixels.contiguous().float().mul_(1 / 255).sub_(self.mean).div_(self.std)


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
