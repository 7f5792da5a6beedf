"""Linear layer with a second form for CPUs: matrix products of oneDNN instead of torch's own choice.

In single precision, torch multiplies matrices with the library that it was built with, often MKL. Which of the two
libraries is faster depends on the processor. In inference, oneDNN also takes weights that are kept in its own layout,
in half precision too, and computes a GELU with the product.
"""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from d2v.core.nn.forms import Trial, TwoForms
from d2v.core.nn.inference import packed_weights
from d2v.core.nn.recompute import as_in_autocast
from d2v.core.precision import autocast_dtype

_TRIAL_ROWS = 128
_OPERATORS = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
_PACKED = (torch.float32, torch.bfloat16)


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
        if self.packs(x):
            return packed_linear(x, self.weight, bias)
        if self.switched and onednn_fits(x, self.weight):
            return onednn_linear(x, self.weight, bias)
        return F.linear(as_in_autocast(x), as_in_autocast(self.weight), bias)

    def with_gelu(self, x: Tensor) -> Tensor:
        """Compute the GELU of the layer, in one step if it `packs`."""
        return packed_linear(x, self.weight, self.bias, "gelu") if self.packs(x) else F.gelu(self(x))

    def packs(self, x: Tensor) -> bool:
        """Whether the layer takes the form of inference for this input; see `packed_linear`."""
        return self.switched and packing_fits(x, self.weight)

    def offers_other_form(self) -> bool:
        """Whether oneDNN computes this layer here: in single precision on a CPU; in inference also in bf16."""
        return onednn_fits(self.weight, self.weight) or packing_fits(self.weight, self.weight)

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
    """Whether this torch has the operators of `onednn_linear` and `packed_linear`."""
    known: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch does not type it
    return known and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)


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


def packing_fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `packed_linear` can compute a product: inside `inferring`, on a CPU, in fp32 or bf16.

    >>> packing_fits(torch.zeros(2, 3), torch.zeros(4, 3))
    False
    """
    return (
        packed_weights() is not None
        and x.device.type == weight.device.type == "cpu"
        and x.dtype in _PACKED
        and weight.dtype in _PACKED
        and _packed_dtype(x) in _PACKED
        and not hasattr(weight, "to_local")
        and x.numel() > 0
        and has_onednn_linear()
        and (_packed_dtype(x) == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def packed_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: Literal["none", "gelu"] = "none"
) -> Tensor:
    """Compute a linear layer that `packing_fits`, with a weight that is kept in the layout of oneDNN.

    Args:
        x: `... i`.
        weight: `o i`.
        bias: `o`, or None.
        activation: of the result.

    Returns:
        `... o`, in the precision of the current autocast, else in that of x.
    """
    packed, dtype = packed_weights(), _packed_dtype(x)
    assert packed is not None  # as it fits
    matrix = packed.of(weight, dtype, lambda: pack(weight, dtype))
    return onednn_product(x.to(dtype), matrix, None if bias is None else bias.to(dtype), activation=activation)


def pack(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight `o i` in the layout of oneDNN for products of a precision."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), None)
    return packed


def onednn_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    added: Tensor | None = None,
    *,
    activation: Literal["none", "gelu"] = "none",
) -> Tensor:
    """Compute activation(x w + bias) or x w + bias + added by the operators of oneDNN, all in one precision.

    Args:
        x: `... i`.
        weight: `o i`, packed or not.
        bias: `o`, or None.
        added: `... o`, or None.
        activation: of the result, without `added`.
    """
    product = torch.ops.mkldnn._linear_pointwise
    y: Tensor = (
        product(x, weight, bias, activation, [], "none")
        if added is None
        else product.binary(x, added, weight, bias, "add")
    )
    return y


def _packed_dtype(x: Tensor) -> torch.dtype:
    return autocast_dtype(x.device) or x.dtype


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        rows = grad.flatten(0, -2) if grad.dim() > 1 else grad[None]
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = onednn_product(rows, weight.t()).view(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = onednn_product(rows.t(), (x.flatten(0, -2) if x.dim() > 1 else x[None]).t())
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias
