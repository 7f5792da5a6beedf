"""Dropout on CPUs: four decisions from one random number, and one bit for each that the backward pass needs."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_GATHER = 0x0102040810204080  # times eight bytes of 0 or 1: their bits, side by side in the highest byte
_SPREAD = 0x0101010101010101  # times a byte: eight copies
_ONE_EACH = 0x8040201008040201 - (1 << 64)  # another bit of each copy; a negative number, for int64


def drop(x: Tensor, dropout: float) -> Tensor:
    """Zero elements at random, and scale the others to preserve the mean.

    Args:
        x: tensor of any shape.
        dropout: probability that an element is dropped.

    >>> sorted(set(drop(torch.ones(1000), 0.5).tolist()))
    [0.0, 2.0]
    """
    if x.device.type != "cpu":
        return F.dropout(x, dropout)
    # On a CPU, drawing a float for every element costs more than the layer around it.
    return _Dropped.apply(x, *keep_mask(x.shape, dropout, device=x.device))  # type: ignore[no-any-return]  # torch does not type apply


def keep_mask(shape: torch.Size | tuple[int, ...], dropout: float, *, device: torch.device) -> tuple[Tensor, float]:
    """Draw a dropout mask: four elements from every random number, one byte per element.

    Args:
        shape: shape of the mask.
        dropout: probability that an element is dropped, accurate to 1 / 131072.
        device: device of the mask.

    Returns:
        (kept, fraction): Bool, True = kept, and the exact probability of being kept.

    >>> kept, fraction = keep_mask((100, 100), 0.1, device=torch.device("cpu"))
    >>> kept.shape, round(fraction, 4)
    (torch.Size([100, 100]), 0.9)
    """
    count = math.prod(shape)
    words = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-count // 4),), device=device)
    kept = round((1 - dropout) * 65536)
    return words.view(torch.int16)[:count].view(shape) <= kept - 32769, kept / 65536


def times_kept(x: Tensor, kept: Tensor | None) -> Tensor:
    """Return x with zeros where a Bool mask of its shape is False; None = x itself."""
    return x if kept is None else x * kept.view(torch.uint8)  # in half of the time that a choice by Bool takes


def pack_bits(mask: Tensor) -> Tensor:
    """Return a Bool mask of n elements as UInt8 of n / 8 elements, rounded up.

    >>> pack_bits(torch.ones(3, 3, dtype=torch.bool)).shape
    torch.Size([2])
    """
    bytes_ = mask.contiguous().view(torch.uint8).flatten()
    bytes_ = F.pad(bytes_, (0, -len(bytes_) % 8))
    return ((bytes_.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def unpack_bits(bits: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return the Bool mask of a shape that `pack_bits` packed.

    >>> unpack_bits(pack_bits(torch.tensor([True, False, True])), (3,))
    tensor([ True, False,  True])
    """
    words = (bits.to(torch.int64) * _SPREAD).bitwise_and_(_ONE_EACH)
    return (words.view(torch.uint8)[: math.prod(shape)] != 0).view(shape)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, fraction: float) -> Tensor:
        ctx.save_for_backward(pack_bits(kept))
        ctx.fraction = fraction
        return times_kept(x, kept).div_(fraction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,), (bits,) = grads, ctx.saved_tensors
        return times_kept(grad, unpack_bits(bits, grad.shape)).div_(ctx.fraction), None, None
