"""Attention with a bias by distance inside the kernel, for GPUs (FlexAttention, Dong et al. 2024).

The kernel computes the bias of each score from the places of two tokens and the slope of the head, so no tensor
`r h k k` is made. The slopes' gradient is a sum over all scores of a head. Instead of adding up in global memory, in
any order, it is computed from a second forward pass, whose weights are multiplied by the distances.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from d2v.core.nn.distances import Distance, DistanceBias, distance

Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_NARROWEST = 16  # width of the smallest product on a GPU


def distance_attention(q: Tensor, k: Tensor, v: Tensor, bias: DistanceBias) -> Tensor:
    """Compute softmax(q k^T / sqrt(w) - slope x distance) v, without weights of padded keys.

    On a GPU the kernel is compiled at the first call, for any number of rows and tokens. Precision, head width,
    gradients on or off, and fewer than 128 tokens make separate kernels. A compiled block includes the kernel.

    Args:
        q: `r h k w`.
        k: `r h k w`.
        v: `r h k w`.
        bias: slopes, places and padding.

    Returns:
        `r h k w`; zeros for queries whose keys are all padding.
    """
    rows, _, length, width = q.shape
    if width < _NARROWEST:  # zeros change no product, but the kernel's scale
        q, k, v = (F.pad(x, (0, _NARROWEST - width)) for x in (q * (_NARROWEST / width) ** 0.5, k, v))
    padding = torch.zeros(rows, length, dtype=torch.bool, device=q.device) if bias.padding is None else bias.padding
    placed = torch.arange(length, device=q.device) >= bias.distances.num_prefix_tokens
    # All of one shape whether rows have their own places or not, so that fewer kernels are compiled.
    places = bias.distances.places.expand(-1, rows, -1).contiguous()
    given = (bias.slopes, padding, placed.to(places.dtype), *places.unbind())
    y, normaliser = _run(_attended, bias.distances.kind, q, k, v, bias.slopes.detach(), *given[1:])
    if torch.is_grad_enabled() and bias.slopes.requires_grad:
        y = _SlopeGradient.apply(bias.distances.kind, y, normaliser, q, k, v, *given)
    return y[..., :width]


def score_of(
    kind: Distance, slopes: Tensor, padding: Tensor, placed: Tensor, *axes: Tensor, weighted: bool = False
) -> Score:
    """Return the function that the kernel applies to each score.

    Args:
        kind: distance on a grid with two axes.
        slopes: float `h`.
        padding: Bool `r k`, True = padding.
        placed: float `k`, 0 for tokens without place, else 1.
        axes: float `r k` for each axis, coordinates of the tokens.
        weighted: whether the attention weights are to be multiplied by the distances.
    """

    def score_of_pair(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        apart = distance([axis[row, query] for axis in axes], [axis[row, key] for axis in axes], kind)
        apart = apart * placed[query] * placed[key]
        score = score - slopes[head] * apart
        return torch.where(padding[row, key], -torch.inf, score + apart.log() if weighted else score)

    return score_of_pair


def _attended(kind: Distance, q: Tensor, k: Tensor, v: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention, and the logarithm of each query's normaliser."""
    return _flex(q, k, v, score_of(kind, *given))


# The compiler counts kernels for each function, and stops at a limit.
def _attended_by_distance(kind: Distance, q: Tensor, k: Tensor, v: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same, with weights multiplied by the distances."""
    return _flex(q, k, v, score_of(kind, *given, weighted=True))


def _flex(q: Tensor, k: Tensor, v: Tensor, score: Score) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention  # imports torch's compiler

    y, auxiliary = flex_attention(q, k, v, score_mod=score, return_aux=AuxRequest(lse=True))
    assert auxiliary.lse is not None  # as requested
    return y, auxiliary.lse


def _run(function: Callable[..., tuple[Tensor, Tensor]], kind: Distance, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    # On a CPU the compiled form has no normaliser. That of torch without a compiler is for tests.
    if torch.compiler.is_compiling() or tensors[0].device.type == "cpu":
        return function(kind, *tensors)
    return _compiled(function)(kind, *tensors)


@cache
def _compiled(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    # Lengths differ from batch to batch; a kernel for each would be compiled again and again.
    return torch.compile(function, dynamic=True)


class _SlopeGradient(torch.autograd.Function):
    """Give the slopes their gradient; the attention passes unchanged.

    For query i with attention y = sum_j p_j v_j and its gradient g, the slope of the head has the gradient
    -sum_j p_j d_j (g v_j - g y) = -w g (y' - y): w is the mean distance under the weights p, and y' the attention with
    weights p_j d_j / w. Both are known from a forward pass with the scores s_j + log d_j.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kind: Distance,
        y: Tensor,
        normaliser: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        slopes: Tensor,
        *given: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(y, normaliser, q, k, v, slopes, *given)
        ctx.kind = kind
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        y, normaliser, q, k, v, slopes, *given = ctx.saved_tensors
        with torch.no_grad():
            other, other_normaliser = _run(_attended_by_distance, ctx.kind, q, k, v, slopes, *given)
        # Rows of padding alone have no weights.
        mean = torch.where(normaliser == -torch.inf, 0, (other_normaliser - normaliser).exp())
        change = (grads[0] * (other - y)).float().sum(-1)
        grad_slopes = -(mean * change).sum((0, 2)).to(slopes.dtype)
        return None, grads[0], None, None, None, None, grad_slopes, *[None] * len(given)
