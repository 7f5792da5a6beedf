"""From a picture to what a model takes, and back to what a person sees.

It knows neither folders nor batches of a loader; torchvision comes in as a function.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# By the number of channels: ImageNet's, and for grey pictures the mean over its channels.
MEAN = {3: (0.485, 0.456, 0.406), 1: (0.449,)}
STD = {3: (0.229, 0.224, 0.225), 1: (0.226,)}


_LONG = 8  # long side by short side of pictures that are cut first


class ResizedMiddle:
    """The middle square of a picture whose shorter side has been resized, by torchvision's rules.

    Of a long picture only what the square is made of is resized: a strip of 3,000,000x2 pixels would otherwise become
    one of 384,000,000x256. Pillow weighs the source pixels around a box as well, so the pixels are the
    same but for how they are rounded between rows and columns.

    Args:
        shorter: pixels of the shorter side after resizing.
        size: of the square, at most `shorter`.

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
        """A picture `size` x `size`."""
        width, height = image.size
        if max(width, height) <= _LONG * min(width, height):
            return self.whole(image)
        from PIL import Image

        left, right = self._span(width, min(width, height))
        top, bottom = self._span(height, min(width, height))
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=(left, top, right, bottom))

    def _span(self, length: int, shortest: int) -> tuple[float, float]:
        """From where to where the square reaches in the source."""
        resized = int(self.shorter * length / shortest)
        first = round((resized - self.size) / 2)
        return first * length / resized, (first + self.size) * length / resized


class Preparation:
    """From a picture to what the model takes.

    Args:
        geometry: from a picture to one of the model's size.
        drawn: whether anything of it is random.
        unchanged: size in pixels of pictures that `geometry` leaves as they are; it costs as much as all else.
        mean: by channel or of all, subtracted from values from 0 to 1.
        std: by channel or of all, what the rest is divided by.
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
        """The published preparation.

        Args:
            size: of the result.
            shorter: pixels of the shorter side before the middle is cut out.
            crop: range of the area and of width by height of random crops in place of the middle; None = the middle.
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
        """Transform a picture; the seed decides what is drawn, if anything is."""
        if seed is not None:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed, which would seed the accelerators as well, and those are not put back.
                torch.default_generator.manual_seed(seed)
                image = self.geometry(image)
        elif image.size != self.unchanged:
            image = self.geometry(image)
        pixels = torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)
        return pixels.contiguous().float().mul_(1 / 255).sub_(self.mean).div_(self.std)


def unprepared(source: Tensor, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Pixels as they were before mean and deviation were taken out, `b c h w` from 0 to 1.

    >>> unprepared(torch.tensor([[[[-0.5, 0.0, 0.5]]]]), mean=(0.5,), std=(0.5,))
    tensor([[[[0.2500, 0.5000, 0.7500]]]])
    """
    shift, scale = (torch.tensor(values).to(source)[:, None, None] for values in (mean, std))
    return (source * scale + shift).clamp(0, 1)
