"""Attention with a bias by distance inside the kernel, for GPUs (FlexAttention, Dong et al. 2024).

The kernel computes the bias of each score from the places of two tokens and the slope of the head, so no tensor
`r h k k` is made. The slopes' gradient is a sum over all scores of a head. Instead of adding up in global memory, in
any order, it is computed from a second forward pass, whose weights are multiplied by the distances.

The kernel has no dropout of attention weights: dropped scores of -inf would also leave the normaliser. So with dropout
each key comes twice. The first copy has the kept weights. The second has the dropped ones, and zeros as values. Which
are kept is computed in the kernel, by hashing the places of the pair and a random number of the head.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from d2v.core.nn.distances import Distance, DistanceBias, distance

Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_NARROWEST = 16  # width of the smallest product on a GPU


def distance_attention(q: Tensor, k: Tensor, v: Tensor, bias: DistanceBias, dropout: float = 0.0) -> Tensor:
    """Compute softmax(q k^T / sqrt(w) - slope x distance) v, without weights of padded keys.

    On a GPU the kernel is compiled at the first call, for any number of rows and tokens. Precision, head width,
    gradients on or off, and fewer than 128 tokens make separate kernels. A compiled block includes the kernel.

    Args:
        q: `r h k w`.
        k: `r h k w`.
        v: `r h k w`.
        bias: slopes, places and padding.
        dropout: probability that a weight is dropped; the others are divided by 1 - dropout.

    Returns:
        `r h k w`; zeros for queries whose keys are all padding.
    """
    rows, heads, length, width = q.shape
    if width < _NARROWEST:  # zeros change no product, but the kernel's scale
        q, k, v = (F.pad(x, (0, _NARROWEST - width)) for x in (q * (_NARROWEST / width) ** 0.5, k, v))
    padding = torch.zeros(rows, length, dtype=torch.bool, device=q.device) if bias.padding is None else bias.padding
    placed = torch.arange(length, device=q.device) >= bias.distances.num_prefix_tokens
    # All of one shape whether rows have their own places or not, so that fewer kernels are compiled.
    places = bias.distances.places.expand(-1, rows, -1).contiguous()
    drawn = None
    if dropout > 0:
        drawn = Drawn.draw(dropout, rows, heads, length, device=q.device)
        k, v = torch.cat([k, k], 2), torch.cat([v / (1 - dropout), torch.zeros_like(v)], 2)
        padding, placed, places = (torch.cat([one, one], -1) for one in (padding, placed, places))
    given = (bias.slopes, padding, placed.to(places.dtype), *places.unbind())
    y, normaliser = _run(_attended, bias.distances.kind, drawn, q, k, v, bias.slopes.detach(), *given[1:])
    if torch.is_grad_enabled() and bias.slopes.requires_grad:
        y = _SlopeGradient.apply(bias.distances.kind, drawn, y, normaliser, q, k, v, *given)
    return y[..., :width]


class Drawn(NamedTuple):
    """A draw of the attention weights to keep, in a form that the kernel reads by row and key.

    Args:
        seed: Int `r h`, random numbers.
        number: Int `2 k`, number of each key.
        first: Bool `2 k`, True = first copy.
        bound: Int `2 k`, one number; a weight is kept if its hash is not below.
    """

    seed: Tensor
    number: Tensor
    first: Tensor
    bound: Tensor

    @classmethod
    def draw(cls, dropout: float, rows: int, heads: int, length: int, *, device: torch.device) -> "Drawn":
        """Draw with torch's generator of the device."""
        number = torch.arange(length, dtype=torch.int32, device=device)
        return cls(
            seed=torch.randint(-(1 << 31), (1 << 31) - 1, (rows, heads), dtype=torch.int32, device=device),
            number=torch.cat([number, number]),
            first=torch.cat([torch.ones_like(number), torch.zeros_like(number)]).bool(),
            bound=torch.full((2 * length,), round(dropout * (1 << 32)) - (1 << 31), dtype=torch.int32, device=device),
        )

    def has(self, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether this copy of a key has the weight of the pair."""
        # Numbers of places come from tensors, because indices are 32 bits wide in one pass and 64 in another.
        found = _mixed(_mixed(self.seed[row, head] ^ self.number[query]) ^ self.number[key])
        return (found >= self.bound[key]) == self.first[key]


def _mixed(x: Tensor) -> Tensor:
    """Hash 32 bits: the function "lowbias32" of Wellons (2018), in signed numbers."""
    x = (x ^ (x >> 16 & 0xFFFF)) * 0x7FEB352D
    x = (x ^ (x >> 15 & 0x1FFFF)) * (0x846CA68B - (1 << 32))
    return x ^ (x >> 16 & 0xFFFF)


def score_of(
    kind: Distance,
    drawn: Drawn | None,
    slopes: Tensor,
    padding: Tensor,
    placed: Tensor,
    *axes: Tensor,
    weighted: bool = False,
) -> Score:
    """Return the function that the kernel applies to each score.

    Args:
        kind: distance on a grid with two axes.
        drawn: weights to keep, None = all; k is twice the number of keys if some are dropped.
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
        score = torch.where(padding[row, key], -torch.inf, score + apart.log() if weighted else score)
        return score if drawn is None else torch.where(drawn.has(row, head, query, key), score, -torch.inf)

    return score_of_pair


def _attended(
    kind: Distance, drawn: Drawn | None, q: Tensor, k: Tensor, v: Tensor, *given: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the attention, and the logarithm of each query's normaliser."""
    return _flex(q, k, v, score_of(kind, drawn, *given))


# The compiler counts kernels for each function, and stops at a limit.
def _attended_by_distance(
    kind: Distance, drawn: Drawn | None, q: Tensor, k: Tensor, v: Tensor, *given: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the same, with weights multiplied by the distances."""
    return _flex(q, k, v, score_of(kind, drawn, *given, weighted=True))


def _flex(q: Tensor, k: Tensor, v: Tensor, score: Score) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention  # imports torch's compiler

    y, auxiliary = flex_attention(q, k, v, score_mod=score, return_aux=AuxRequest(lse=True))
    assert auxiliary.lse is not None  # as requested
    return y, auxiliary.lse


def _run(
    function: Callable[..., tuple[Tensor, Tensor]], kind: Distance, drawn: Drawn | None, *tensors: Tensor
) -> tuple[Tensor, Tensor]:
    # On a CPU the compiled form has no normaliser. That of torch without a compiler is for tests.
    if torch.compiler.is_compiling() or tensors[0].device.type == "cpu":
        return function(kind, drawn, *tensors)
    return _compiled(function)(kind, drawn, *tensors)


@cache
def _compiled(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    # Lengths differ from batch to batch; a kernel for each would be compiled again and again.
    return torch.compile(function, dynamic=True)


class _SlopeGradient(torch.autograd.Function):
    """Give the slopes their gradient; the attention passes unchanged.

    For query i with attention y = sum_j p_j v_j and its gradient g, the slope of the head has the gradient
    -sum_j p_j d_j (g v_j - g y) = -w g (y' - y): w is the mean distance under the weights p, and y' the attention with
    weights p_j d_j / w. Both are known from a forward pass with the scores s_j + log d_j. With dropout, v_j is 0 for
    the copies with the dropped weights.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kind: Distance,
        drawn: Drawn | None,
        y: Tensor,
        normaliser: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        slopes: Tensor,
        *given: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*(() if drawn is None else drawn), y, normaliser, q, k, v, slopes, *given)
        ctx.kind, ctx.drawn = kind, 0 if drawn is None else len(drawn)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        y, normaliser, q, k, v, slopes, *given = ctx.saved_tensors[ctx.drawn :]
        drawn = Drawn(*ctx.saved_tensors[: ctx.drawn]) if ctx.drawn else None
        with torch.no_grad():
            other, other_normaliser = _run(_attended_by_distance, ctx.kind, drawn, q, k, v, slopes, *given)
        # Rows of padding alone have no weights.
        mean = torch.where(normaliser == -torch.inf, 0, (other_normaliser - normaliser).exp())
        change = (grads[0] * (other - y)).float().sum(-1)
        grad_slopes = -(mean * change).sum((0, 2)).to(slopes.dtype)
        return None, None, grads[0], None, None, None, None, grad_slopes, *[None] * len(given)
