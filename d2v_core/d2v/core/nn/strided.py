"""Strided convolutions over channels-last features as matrix products, for CPUs.

A convolution with stride s takes s neighbouring positions as one row of a matrix, which is a view of the features: one
product for every s places of the kernel, and no copies. The kernels of a CPU for convolutions over one axis take
channels-first features, and are slower than its matrix products.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from d2v.core.nn.inference import packed_weights
from d2v.core.nn.linear import onednn_product, pack, packing_fits
from d2v.core.precision import autocast_dtype


def fits_products(conv: nn.Conv1d) -> bool:
    """Whether `strided_products` can compute a convolution: a stride above 1, one group, and no padding or dilation.

    >>> fits_products(nn.Conv1d(4, 6, 3, stride=2)), fits_products(nn.Conv1d(4, 6, 3))
    (True, False)
    """
    return conv.stride[0] > 1 and conv.groups == 1 and conv.padding == (0,) and conv.dilation == (1,)


def strided_products(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Compute a convolution that `fits_products`.

    Args:
        conv: convolution of torch.
        x: `r t c`, at least as long as the kernel.

    >>> strided_products(nn.Conv1d(4, 6, 3, stride=2), torch.zeros(2, 9, 4)).shape
    torch.Size([2, 4, 6])
    """
    weight, bias = conv.weight, conv.bias
    if packing_fits(x, weight):
        return _packed_products(conv, x)
    dtype = autocast_dtype(x.device)
    if dtype is not None:
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if conv.in_channels == 1:
        # The rows would be too short.
        return F.linear(x[..., 0].unfold(1, conv.kernel_size[0], conv.stride[0]), weight[:, 0], bias)
    y: Tensor = _StridedProducts.apply(x.contiguous(), weight, conv.stride[0])
    return y if bias is None else y + bias


def _packed_products(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """The same for inference, with weights that are kept in the layout of oneDNN."""
    packed, weight, stride = packed_weights(), conv.weight, conv.stride[0]
    assert packed is not None  # as it fits
    dtype = autocast_dtype(x.device) or x.dtype
    x, bias = x.to(dtype).contiguous(), None if conv.bias is None else conv.bias.to(dtype)
    frames = (x.shape[1] - weight.shape[2]) // stride + 1
    if conv.in_channels == 1:
        matrix = packed.of(weight, dtype, lambda: pack(weight[:, 0], dtype))
        return onednn_product(x[..., 0].unfold(1, conv.kernel_size[0], stride), matrix, bias)
    matrices = packed.of(weight, dtype, lambda: [(at, pack(matrix, dtype)) for at, matrix in _matrices(weight, stride)])
    rows = []
    for row in torch.split(x, 1):
        y: Tensor | None = None
        for first, matrix in matrices:
            part = _rows(row, first, frames, matrix.shape[1], stride)[0]
            y = onednn_product(part, matrix, bias if y is None else None, y)
        assert y is not None  # there is a first one
        rows.append(y)
    return torch.stack(rows)


class _StridedProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        frames = (x.shape[1] - weight.shape[2]) // stride + 1
        y = x.new_empty(x.shape[0], frames, weight.shape[0])
        for first, matrix in _matrices(weight, stride):
            for row, part in zip(y, _rows(x, first, frames, matrix.shape[1], stride), strict=True):
                row.addmm_(part, matrix.t(), beta=int(first > 0))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        grad = grad.contiguous()
        stride, frames = ctx.stride, grad.shape[1]
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        grad_weights = []
        for first, matrix in _matrices(weight, stride):
            width = matrix.shape[1]
            # Sums over many rows of half precision would lose digits.
            exact = torch.promote_types(grad.dtype, torch.float32)
            grad_weights.append(grad.new_zeros(matrix.shape, dtype=exact))
            for row, part in zip(grad, _rows(x, first, frames, width, stride), strict=True):
                grad_weights[-1] += row.t() @ part
            if grad_x is not None:
                _rows(grad_x, first, frames, width, stride).add_(grad @ matrix)
        grad_weight = torch.cat(grad_weights, 1).view(weight.shape[0], weight.shape[2], weight.shape[1])
        return grad_x, grad_weight.transpose(1, 2).to(weight.dtype), None


def _matrices(weight: Tensor, stride: int) -> list[tuple[int, Tensor]]:
    """Weights `o (k c)` of every `stride` places of the kernel, with the first of these places."""
    matrix = weight.transpose(1, 2).flatten(1)
    channels, places = weight.shape[1], range(0, weight.shape[2], stride)
    return list(zip(places, torch.split(matrix, stride * channels, 1), strict=True))


def _rows(x: Tensor, first: int, frames: int, width: int, stride: int) -> Tensor:
    """View of features `r t c` as rows `r frames width`, each `stride` positions after the other."""
    r, t, c = x.shape
    return x.as_strided((r, frames, width), (t * c, stride * c, 1), x.storage_offset() + first * c)
