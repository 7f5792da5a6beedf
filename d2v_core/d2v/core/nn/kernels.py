"""Which form a computation takes on which device, and the forms that the library has of its own.

All forms of a computation give the same, but for rounding and for what is drawn at random, and modules ask for the
result alone. Accelerators have fused kernels for attention and dropout. Those of a processor lack dropout and are slow
backwards; what it runs instead was measured (`benchmarks/attention.py`), and so was the layout of grouped convolutions
on a GPU (`benchmarks/convolution.py`).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from d2v.core.nn.lean_attention import dropped_attention


def attend(qkv: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """softmax(q k^T / sqrt(w) + mask) v, with dropout on the weights.

    Args:
        qkv: `3 r h k w`, queries, keys and values in one tensor: the products copy all three at once.
        mask: Bool (True = attend) or an additive bias, broadcast to `r h k k`, or None.
        dropout: probability that a weight is dropped; 0 = none is.

    Returns:
        `r h k w`; zeros where nothing may be attended to.

    >>> attend(torch.zeros(3, 2, 4, 5, 8), None, 0.0).shape
    torch.Size([2, 4, 5, 8])
    """
    if mask is not None and mask.is_floating_point():
        mask = mask.to(qkv.dtype)
    q, k, v = qkv.unbind()
    if dropout > 0 and q.device.type == "cpu":
        # Torch has no fused kernel with dropout there. Ours is faster than its general form, and keeps less than half.
        kept, fraction = keep_mask((*q.shape[:3], k.shape[2]), dropout, device=q.device)
        return dropped_attention(q, k, v, mask, kept, fraction)
    if products_are_faster(q):
        return attention_by_products(qkv, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def products_are_faster(q: Tensor) -> bool:
    """Whether plain products are faster than the fused kernel, for queries `r h k w` without dropout.

    The backward pass of the fused kernel is slow on a processor: in half precision products take 1/2 to 1/8 of its time
    up to 128 tokens; in full precision 4 to 9 tenths up to 32 with two threads, about the same with one. They keep a
    square matrix, so long rows are left to the kernel, as is what has no backward.

    >>> products_are_faster(torch.zeros(2, 4, 32, 8, requires_grad=True)), products_are_faster(torch.zeros(2, 4, 32, 8))
    (True, False)
    """
    longest = 128 if q.dtype in (torch.bfloat16, torch.float16) else 32
    return q.device.type == "cpu" and q.requires_grad and torch.is_grad_enabled() and q.shape[2] <= longest


def attention_by_products(qkv: Tensor, mask: Tensor | None) -> Tensor:
    """`attend` without dropout, as products over merged rows and heads."""
    heads, width = qkv.shape[2], qkv.shape[4]
    q, k, v = rearrange(qkv, "three r h k w -> three (r h) k w").unbind()
    scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=width**-0.5)
    if mask is None:
        weights = torch.softmax(scores, -1)
    else:
        scores = rearrange(scores, "(r h) q k -> r h q k", h=heads)
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        # As the fused kernel: zeros, not NaN, where everything is masked.
        weights = rearrange(torch.ops.aten._safe_softmax(scores, -1), "r h q k -> (r h) q k")
    return rearrange(torch.bmm(weights, v), "(r h) q w -> r h q w", h=heads)


def drop(x: Tensor, dropout: float) -> Tensor:
    """Zero elements at random, and scale the others so that the mean stays.

    Args:
        x: of any shape.
        dropout: probability that an element is dropped.

    >>> sorted(set(drop(torch.ones(1000), 0.5).tolist()))
    [0.0, 2.0]
    """
    if x.device.type != "cpu":
        return F.dropout(x, dropout)
    # On a processor, drawing a float for every element costs more than the layer around it.
    kept, fraction = keep_mask(x.shape, dropout, device=x.device)
    return torch.where(kept, x, 0) / fraction


def keep_mask(shape: torch.Size | tuple[int, ...], dropout: float, *, device: torch.device) -> tuple[Tensor, float]:
    """Decide what stays: four decisions out of every random number, one byte for each.

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


def convolve(conv: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of features whose channels stand last.

    Args:
        conv: as torch has it.
        x: `r t c` or `r h w c`.

    >>> convolve(nn.Conv2d(4, 6, 3, padding=1), torch.zeros(2, 5, 5, 4)).shape
    torch.Size([2, 5, 5, 6])
    """
    # The permuted view is what channels-last convolutions want.
    x = x.movedim(-1, 1)
    y: Tensor = conv(x.contiguous() if channels_first_is_faster(conv, x) else x)
    return y.movedim(1, -1)


def channels_first_is_faster(conv: nn.Conv1d | nn.Conv2d, x: Tensor) -> bool:
    """Whether channels should stand first in memory for a convolution of `r c h w`.

    cuDNN's channels-last kernels for groups take a multiple of 64 channels each; for others it lays the tensors out
    anew, nine times a layer. A compiler chooses layouts by itself.

    >>> channels_first_is_faster(nn.Conv2d(32, 32, 3, groups=2), torch.zeros(1, 32, 4, 4))
    False
    """
    if torch.compiler.is_compiling() or x.device.type != "cuda":
        return False
    return x.dim() == 4 and conv.groups > 1 and conv.weight.shape[1] % 64 != 0
