"""Dropout that draws four decisions out of every random number and keeps one byte for each.

On a processor, drawing a float for every element costs more than the layer around it; accelerators have kernels of
their own.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_mask(shape: torch.Size | tuple[int, ...], dropout: float, *, device: torch.device) -> tuple[Tensor, float]:
    """Decide what stays.

    Args:
        shape: of the decisions.
        dropout: probability that something is dropped, met to 1 / 131072.
        device: where the decisions lie.

    Returns:
        Bool, True = kept, and the probability that it really has.

    >>> kept, fraction = keep_mask((100, 100), 0.1, device=torch.device("cpu"))
    >>> kept.shape, round(fraction, 4)
    (torch.Size([100, 100]), 0.9)
    """
    count = math.prod(shape)
    words = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-count // 4),), device=device)
    kept = round((1 - dropout) * 65536)
    return words.view(torch.int16)[:count].view(shape) <= kept - 32769, kept / 65536


class Dropout(nn.Module):
    """Zeroes elements at random in training, and scales the others so that the mean stays.

    Args:
        p: probability of an element to be dropped.

    Raises:
        ValueError: if p is not in [0, 1).

    >>> dropout = Dropout(0.5)
    >>> sorted(set(dropout(torch.ones(1000)).tolist()))
    [0.0, 2.0]
    >>> torch.equal(dropout.eval()(torch.ones(3)), torch.ones(3))
    True
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p} is not in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        kept, fraction = keep_mask(x.shape, self.p, device=x.device)
        return torch.where(kept, x, 0) / fraction
