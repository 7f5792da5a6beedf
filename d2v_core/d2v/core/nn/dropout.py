"""Dropout as a module."""

from torch import Tensor, nn

from d2v.core.nn.dropping import drop
from d2v.core.validators import check, probability


class Dropout(nn.Module):
    """Zeroes elements at random in training, and scales the others to preserve the mean; see `drop`.

    Args:
        p: probability that an element is dropped.

    Raises:
        ValueError: if p is not in [0, 1).

    >>> import torch
    >>> dropout = Dropout(0.5)
    >>> sorted(set(dropout(torch.ones(1000)).tolist()))
    [0.0, 2.0]
    >>> torch.equal(dropout.eval()(torch.ones(3)), torch.ones(3))
    True
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        check(probability, dropout=p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape."""
        return drop(x, self.p) if self.training and self.p > 0 else x
