"""Functions that change a gradient, its scale or its memory layout, and leave the forward pass unchanged."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x unchanged, with its gradient multiplied by `factor`; 1 and 0 cost nothing.

    >>> x = torch.ones(2, requires_grad=True)
    >>> scale_gradient(x, 0.5).sum().backward()
    >>> x.grad
    tensor([0.5000, 0.5000])
    """
    if factor == 1:
        return x
    if factor == 0:
        return x.detach()
    return _Scale.apply(x, factor)  # type: ignore[no-any-return]  # torch does not type apply


class _KeepLayout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.layout = x.stride()
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        if grad.stride() == ctx.layout:
            return grad
        return torch.empty_strided(grad.shape, ctx.layout, dtype=grad.dtype, device=grad.device).copy_(grad)


def keep_layout(x: Tensor) -> Tensor:
    """Return x unchanged, with a gradient that has its memory layout.

    On a CPU, the backward pass of an activation is slow if its output is a transposed view and its gradient is not.

    >>> x = torch.ones(2, 3, requires_grad=True)
    >>> keep_layout(x.t()).sum().backward()
    >>> x.grad.shape
    torch.Size([2, 3])
    """
    return _KeepLayout.apply(x) if x.requires_grad else x
