"""Linear layer with a second form for training on CPUs: matrix products of oneDNN instead of torch's own choice.

In single precision, torch multiplies matrices with the library that it was built with, often MKL. Which of the two
libraries is faster depends on the processor.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from d2v.core.nn.forms import Trial, TwoForms
from d2v.core.nn.recompute import recomputed
from d2v.core.precision import autocast_dtype

_TRIAL_ROWS = 128


class Linear(nn.Linear, TwoForms):
    """A linear layer of torch, whose products can be computed by oneDNN; see `TwoForms`.

    >>> layer = Linear(3, 2)
    >>> layer(torch.zeros(5, 3)).shape, layer.takes_other_form
    (torch.Size([5, 2]), False)
    """

    other_form: ClassVar[str] = "onednn-linear"

    def forward(self, input: Tensor) -> Tensor:
        """Compute `... o` of `... i`."""
        return self.with_bias(input, self.bias)

    def with_bias(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the layer with another bias `o`, or none."""
        if self.takes_other_form and onednn_fits(x, self.weight):
            return onednn_linear(x, self.weight, bias)
        weight, dtype = self.weight, autocast_dtype(x.device)
        if dtype is not None and x.dtype != torch.float64:  # as autocast does, which would keep the results
            x, weight = recomputed(Tensor.to, x, dtype), recomputed(Tensor.to, weight, dtype)
        return F.linear(x, weight, bias)

    def offers_other_form(self) -> bool:
        """Whether oneDNN computes this layer here: single precision on a CPU, outside of autocast."""
        return onednn_fits(self.weight, self.weight)

    def trial(self) -> Trial:
        """Return 128 rows, and the layer."""
        return torch.randn(_TRIAL_ROWS, self.in_features), self


def onednn_fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `onednn_linear` can compute a product, instead of torch.

    It is for plain tensors in single precision on a CPU. Compilers and exporters need torch's own operator. That of
    oneDNN is private: a release of torch may lack it.

    >>> onednn_fits(torch.zeros(2, 3).double(), torch.zeros(4, 3).double())
    False
    """
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and autocast_dtype(x.device) is None
        and not torch.compiler.is_compiling()
        and not hasattr(weight, "to_local")  # a sharded parameter
        and x.numel() > 0
        and has_onednn_linear()
    )


def has_onednn_linear() -> bool:
    """Whether this torch has the operator of `onednn_linear`."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]  # torch does not type it


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a linear layer, and its gradients, by oneDNN.

    Args:
        x: float32 `... i`, on the CPU.
        weight: float32 `o i`.
        bias: float32 `o`, or None.

    >>> if has_onednn_linear():
    ...     onednn_linear(torch.ones(5, 3), torch.ones(2, 3), torch.ones(2))[0]
    ... else:
    ...     torch.tensor([4.0, 4.0])
    tensor([4., 4.])
    """
    return _OneDNNLinear.apply(x, weight, bias)  # type: ignore[no-any-return]  # torch does not type apply


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        rows = grad.flatten(0, -2) if grad.dim() > 1 else grad[None]
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _product(rows, weight.t()).view(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = _product(rows.t(), (x.flatten(0, -2) if x.dim() > 1 else x[None]).t())
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y
