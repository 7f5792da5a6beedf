"""Pictures that ship with the package, so that the first run needs no download.

They are arrays in a file; how they came to be is told beside it (`shipped/LICENSE-fashion-mnist`).
"""

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

__all__ = ["fashion_mnist"]

_SPLITS = ("pretrain", "choose", "report")


def fashion_mnist(split: str) -> tuple[Tensor, Tensor]:
    """A part of Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747), ten classes of clothes, equally many of each.

    Args:
        split: `pretrain` (10,000 pictures), `choose` (2,000, to choose settings by) or `report` (2,000, for figures
            that are told); no picture is in two of them, or twice in one. They are not the official parts.

    Returns:
        Pictures, uint8 `b 1 28 28`, and their classes, Long `b`, in a fixed mixed order.

    Raises:
        ValueError: if there is no such split.

    >>> images, labels = fashion_mnist("report")
    >>> images.shape, images.dtype, labels.shape
    (torch.Size([2000, 1, 28, 28]), torch.uint8, torch.Size([2000]))
    """
    if split not in _SPLITS:
        raise ValueError(f"fashion_mnist has no split {split!r}; it has {', '.join(_SPLITS)}")
    with files("d2v.vision").joinpath("shipped/fashion-mnist.npz").open("rb") as file:
        # Never unpickle: a data file has no business running code.
        arrays = np.load(file, allow_pickle=False)
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()
