"""Choice of kernels by device, and the library's own implementations.

All implementations of a computation are equivalent except for rounding and random numbers, and modules only call the
functions here. Accelerators have fused kernels for attention and dropout. The fused attention of a CPU has no dropout,
no gradient of a bias and a slow backward pass. The alternatives were chosen by measurement: `benchmarks/attention.py`,
and `benchmarks/convolution.py` for the layout of grouped convolutions on a GPU.
"""

import importlib.util
import math
import os
import shutil
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from d2v.core.nn.distances import DistanceBias
from d2v.core.nn.dropping import keep_mask
from d2v.core.nn.flex import distance_attention
from d2v.core.nn.inference import packed_weights
from d2v.core.nn.lean import lean_attention
from d2v.core.nn.recompute import as_in_autocast
from d2v.core.nn.strided import fits_products, strided_products

_VECTOR = 64  # bytes

AttentionForm = Literal["lean", "products", "distances", "fused"]


def attend(qkv: Tensor, mask: Tensor | DistanceBias | None, dropout: float) -> Tensor:
    """Compute softmax(q k^T / sqrt(w) + mask) v, with dropout on the weights.

    Args:
        qkv: `3 r h k w`, queries, keys and values in one tensor, so that they can be copied together.
        mask: Bool (True = attend) or an additive bias, broadcast to `r h k k`, or a bias by distance, or None.
        dropout: probability that a weight is dropped; 0 = no dropout.

    Returns:
        `r h k w`; zeros for queries whose keys are all masked.

    >>> attend(torch.zeros(3, 2, 4, 5, 8), None, 0.0).shape
    torch.Size([2, 4, 5, 8])
    """
    q, k, v = qkv.unbind()
    form = attention_form(q, mask, dropout)
    if form == "distances":
        assert isinstance(mask, DistanceBias)
        return distance_attention(q, k, v, mask, dropout)
    if form == "lean":
        if isinstance(mask, Tensor) and mask.is_floating_point():
            mask = mask.to(qkv.dtype)
        if dropout == 0:
            return lean_attention(q, k, v, mask)
        return lean_attention(q, k, v, mask, *keep_mask((*q.shape[:3], k.shape[2]), dropout, device=q.device))
    if isinstance(mask, DistanceBias):
        mask = mask.table(qkv.dtype)
    elif mask is not None and mask.is_floating_point():
        mask = mask.to(qkv.dtype)
    if form == "products":
        return attention_by_products(qkv, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def attention_form(q: Tensor, mask: Tensor | DistanceBias | None, dropout: float) -> AttentionForm:
    """Choose the form of attention for queries `r h k w`.

    Returns:
        "lean": `lean_attention`; "products": `attention_by_products`; "distances": `distance_attention`; "fused":
        torch's kernel, for which a bias by distance becomes a tensor `r h k k`.

    >>> attention_form(torch.zeros(2, 4, 32, 8), None, 0.0)
    'fused'
    """
    if torch.compiler.is_exporting():
        return "products"  # the only one without assumptions on the device and on memory formats
    if q.device.type == "cpu":
        # Torch has no fused CPU kernel with dropout. The lean form is faster than the general one and saves less than
        # half of the memory for the backward pass.
        if dropout > 0:
            return "lean"
        if products_are_faster(q):
            return "products"
        # The fused kernel gives the bias no gradient, so torch would take its general form here, too.
        learned = isinstance(mask, DistanceBias) and mask.slopes.requires_grad and torch.is_grad_enabled()
        return "lean" if learned else "fused"
    if isinstance(mask, DistanceBias) and distances_pay(q, mask):
        return "distances"
    return "fused"


def distances_pay(q: Tensor, bias: DistanceBias) -> bool:
    """Whether a kernel that computes a bias by distance itself is worth compiling, for queries `r h k w`.

    It needs a CUDA device and what compiles for it. Below 2^24 elements, 32 MiB in half precision, the bias itself is
    used: it is computed once for all layers, and the compiler would take longer than short inference.

    >>> from d2v.core.nn.distances import Distances
    >>> bias = DistanceBias(distances=Distances(places=torch.zeros(1, 1, 3)), slopes=torch.ones(2))
    >>> distances_pay(torch.zeros(1, 2, 3, 4), bias)
    False
    """
    return q.device.type == "cuda" and q.dtype != torch.float64 and math.prod(bias.shape) >= 1 << 24 and can_compile()


@cache
def can_compile() -> bool:
    """Whether Triton and the C compiler that it needs are installed."""
    compilers = [os.environ.get("CC"), "gcc", "clang"]
    return importlib.util.find_spec("triton") is not None and any(name and shutil.which(name) for name in compilers)


def products_are_faster(q: Tensor) -> bool:
    """Whether plain matrix products are faster than the fused kernel, for queries `r h k w` without dropout.

    The backward pass of the fused kernel is slow on a CPU. Up to 128 tokens, products take 1/2 to 1/8 of its time in
    half precision. In full precision they take 0.4 to 0.9 of it up to 32 tokens with two threads, and about the same
    time with one. They store a square matrix, so long rows use the fused kernel, as does inference.

    >>> products_are_faster(torch.zeros(2, 4, 32, 8, requires_grad=True)), products_are_faster(torch.zeros(2, 4, 32, 8))
    (True, False)
    """
    longest = 128 if q.dtype in (torch.bfloat16, torch.float16) else 32
    return q.device.type == "cpu" and q.requires_grad and torch.is_grad_enabled() and q.shape[2] <= longest


def attention_by_products(qkv: Tensor, mask: Tensor | None) -> Tensor:
    """Compute `attend` without dropout, as matrix products over merged rows and heads."""
    heads, width = qkv.shape[2], qkv.shape[4]
    q, k, v = rearrange(qkv, "three r h k w -> three (r h) k w").unbind()
    scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=width**-0.5)
    if mask is None:
        weights = softmax_of_rows(scores)
    else:
        scores = rearrange(scores, "(r h) q k -> r h q k", h=heads)
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        # As in the fused kernel: zeros, not NaN, where everything is masked.
        weights = rearrange(torch.ops.aten._safe_softmax(scores, -1), "r h q k -> (r h) q k")
    return rearrange(torch.bmm(weights, v), "(r h) q w -> r h q w", h=heads)


def softmax_of_rows(scores: Tensor) -> Tensor:
    """Softmax over the last axis of scores `r q k`; short rows are computed together, side by side in memory.

    The CPU's kernel takes a row at a time. If a row is shorter than a vector of the processor, most of the time is
    lost.

    >>> softmax_of_rows(torch.zeros(2, 3, 4))[0, 0]
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    short = scores.shape[-1] * scores.element_size() < _VECTOR
    if not short or scores.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.softmax(scores, -1)
    return torch.softmax(scores.permute(2, 0, 1).contiguous(), 0).permute(1, 2, 0).contiguous()


def row_attention_fits(qkv: Tensor, mask: Tensor | None) -> bool:
    """Whether `attention_row_by_row` can compute attention: in `inferring` on a CPU, without padding.

    >>> row_attention_fits(torch.zeros(3, 2, 4, 5, 8), None)
    False
    """
    shared = mask is None or (mask.dtype != torch.bool and mask.shape[0] == 1)
    return packed_weights() is not None and qkv.device.type == "cpu" and shared


def attention_row_by_row(qkv: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `attend` for inference, as matrix products of one row after the other, which stay in the cache.

    Args:
        qkv: `3 r h k w`.
        bias: additive, broadcast to `1 h k k`, or None.

    Returns:
        `r h k w`.

    >>> qkv = torch.randn(3, 2, 4, 5, 8)
    >>> torch.allclose(attention_row_by_row(qkv, None), attend(qkv, None, 0.0), atol=1e-6)
    True
    """
    q, k, v = qkv.unbind()
    r, h, length, w = q.shape
    y = q.new_empty(r, length, h, w)
    added, beta = (q.new_zeros(1, 1, 1), 0) if bias is None else (bias[0].to(q.dtype), 1)
    for row in range(r):
        scores = torch.baddbmm(added, q[row], k[row].transpose(1, 2), beta=beta, alpha=w**-0.5)
        y[row].transpose(0, 1).copy_(torch.bmm(torch.softmax(scores, -1), v[row]))
    return y.transpose(1, 2)


def convolve(conv: nn.Conv1d | nn.Conv2d, x: Tensor, *, channels_last: bool = False) -> Tensor:
    """Apply a convolution to channels-last features.

    Args:
        conv: convolution of torch.
        x: `r t c` or `r h w c`.
        channels_last: whether a convolution over one axis keeps this memory format on a CPU, as matrix products if it
            `fits_products`, else as a convolution over two axes. The result has this format, too.

    >>> convolve(nn.Conv2d(4, 6, 3, padding=1), torch.zeros(2, 5, 5, 4)).shape
    torch.Size([2, 5, 5, 6])
    """
    x = as_in_autocast(x)
    if channels_last and isinstance(conv, nn.Conv1d) and fits_channels_last(x):
        return strided_products(conv, x) if fits_products(conv) else _convolve_channels_last(conv, x)
    # The permuted view is in channels-last memory format.
    x = x.movedim(-1, 1)
    y: Tensor = conv(x.contiguous() if channels_first_is_faster(conv, x) else x)
    return y.movedim(1, -1)


def fits_channels_last(x: Tensor) -> bool:
    """Whether a convolution can have the form that was measured on a CPU; compilers choose layouts themselves.

    >>> fits_channels_last(torch.zeros(1, 2, 3))
    True
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _convolve_channels_last(conv: nn.Conv1d, x: Tensor) -> Tensor:
    (stride,), (dilation,) = conv.stride, conv.dilation
    assert isinstance(conv.padding, tuple)  # not given by a word
    y = F.conv2d(
        x.movedim(-1, 1).unsqueeze(2),
        conv.weight.unsqueeze(2),
        conv.bias,
        stride=(1, stride),
        padding=(0, conv.padding[0]),
        dilation=(1, dilation),
        groups=conv.groups,
    )
    return y.squeeze(2).movedim(1, -1)


def channels_first_is_faster(conv: nn.Conv1d | nn.Conv2d, x: Tensor) -> bool:
    """Whether the channels-first memory format is faster for a convolution of `r c h w`.

    cuDNN's channels-last kernels need a multiple of 64 channels per group. For other sizes it converts the layout nine
    times per layer. A compiler chooses layouts automatically.

    >>> channels_first_is_faster(nn.Conv2d(32, 32, 3, groups=2), torch.zeros(1, 32, 4, 4))
    False
    """
    if torch.compiler.is_compiling() or x.device.type != "cuda":
        return False
    return x.dim() == 4 and conv.groups > 1 and conv.weight.shape[1] % 64 != 0
