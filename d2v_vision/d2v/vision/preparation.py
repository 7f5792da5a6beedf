"""From a picture to what a model takes, and back to what a person sees.

It knows neither folders nor batches of a loader; torchvision comes in as a function.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2v.core.model import Batch

# ImageNet's, and for grey pictures the mean over its channels.
MEAN_STD = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


class Preparation:
    """From a picture to what the model takes.

    Args:
        geometry: from a picture to one of the model's size.
        drawn: whether anything of it is random.
        unchanged: size in pixels of pictures that `geometry` leaves as they are; it costs as much as all else.
        mean_std: by channel.
    """

    def __init__(
        self,
        geometry: Callable[[Any], Any],
        *,
        drawn: bool,
        unchanged: tuple[int, int] | None,
        mean_std: tuple[tuple[float, ...], tuple[float, ...]],
    ) -> None:
        self.geometry, self.drawn, self.unchanged = geometry, drawn, unchanged
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in mean_std)

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


def pictures(batch: Batch) -> Tensor:
    """Images as they were before their preparation for the model, `b c h w` from 0 to 1.

    >>> pictures(Batch(source=torch.tensor([[[[-0.449 / 0.226, 0.0, 0.551 / 0.226]]]])))
    tensor([[[[0.0000, 0.4490, 1.0000]]]])
    """
    mean, std = (torch.tensor(values).to(batch.source) for values in MEAN_STD[batch.source.shape[1]])
    return (batch.source * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
