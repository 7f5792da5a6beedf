"""Attention for training on a CPU, whose fused kernel has neither dropout nor a gradient of the bias.

The general formulation saves three square matrices per layer for the backward pass. This one saves a bit for each
weight that dropout may zero, and computes the weights again. A few rows are computed at a time, so that their weights
stay in the cache. A bias by distance is added to the scores and its gradient summed to one number per head, so no bias
and no gradient of one has the size of the weights.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from d2v.core.nn.distances import DistanceBias
from d2v.core.nn.dropping import pack_bits, times_kept, unpack_bits
from d2v.core.precision import autocast_dtype

_CACHED = 1 << 20  # weights


def lean_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | DistanceBias | None,
    kept: Tensor | None = None,
    fraction: float = 1.0,
) -> Tensor:
    """Compute softmax(q k^T / sqrt(width) + mask) v, with kept weights divided by `fraction` and the others zero.

    Args:
        q: `r h k w`.
        k: `r h k w`.
        v: `r h k w`.
        mask: Bool (True = attend) or an additive bias, broadcast to `r h k k`, or a bias by distance, or None.
        kept: Bool `r h k k`; None = all weights are kept.
        fraction: probability that a weight is kept.

    Returns:
        `r h k w`.

    >>> q, k, v = torch.randn(3, 2, 4, 5, 8)
    >>> kept = torch.rand(2, 4, 5, 5) < 0.5
    >>> lean_attention(q, k, v, None, kept, 0.5).shape
    torch.Size([2, 4, 5, 8])
    """
    dtype = autocast_dtype(q.device)
    if dtype is not None and q.dtype == torch.float32:  # autocast does not reach into the backward pass
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    distances = slopes = None
    if isinstance(mask, DistanceBias):
        distances, slopes = mask.distances.table(), mask.slopes
        mask = None if mask.padding is None else ~mask.padding[:, None, None]
    return _LeanAttention.apply(q, k, v, mask, distances, slopes, kept, fraction)  # type: ignore[no-any-return]  # torch does not type apply


class _LeanAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        distances: Tensor | None,
        slopes: Tensor | None,
        kept: Tensor | None,
        fraction: float,
    ) -> Tensor:
        bits = None if kept is None else pack_bits(kept)
        ctx.save_for_backward(q, k, v, mask, distances, slopes, bits)
        ctx.fraction = fraction
        q = q * q.shape[-1] ** -0.5
        y: list[Tensor] = []
        for rows in _parts(q):
            weights = _weights(q[rows], k[rows], _of(mask, rows), _of(distances, rows), slopes)
            y.append(times_kept(weights, _of(kept, rows)) @ v[rows])
        return torch.cat(y).div_(fraction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, mask, distances, slopes, bits = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        q, grad = q * scale, grads[0] / ctx.fraction
        kept = None if bits is None else unpack_bits(bits, (*q.shape[:3], k.shape[2]))
        exact = torch.promote_types(q.dtype, torch.float32)  # of sums over all parts
        grad_mask = torch.zeros_like(mask, dtype=exact) if ctx.needs_input_grad[3] else None
        grad_slopes = torch.zeros_like(slopes, dtype=exact) if ctx.needs_input_grad[5] else None
        grad_q: list[Tensor] = []
        grad_k: list[Tensor] = []
        grad_v: list[Tensor] = []
        for rows in _parts(q):
            weights, own = _weights(q[rows], k[rows], _of(mask, rows), _of(distances, rows), slopes), _of(kept, rows)
            grad_v.append(times_kept(weights, own).transpose(-1, -2) @ grad[rows])
            grad_scores = times_kept(grad[rows] @ v[rows].transpose(-1, -2), own)
            # One pass instead of two: the product with the weights, and the component that all weights of a row share.
            grad_scores = torch._softmax_backward_data(grad_scores, weights, -1, weights.dtype)
            grad_q.append((grad_scores @ k[rows]).mul_(scale))
            grad_k.append(grad_scores.transpose(-1, -2) @ q[rows])
            if grad_mask is not None:
                part = _of(grad_mask, rows)
                part += grad_scores.sum_to_size(part.shape)
            if grad_slopes is not None:
                # Products of matrices `h kk` with vectors `kk`: nothing else of the size of the weights is made.
                apart = _of(distances, rows).flatten(1)[..., None].to(exact)
                grad_slopes -= (grad_scores.flatten(2).to(exact) @ apart).sum((0, 2))
        grad_mask = None if grad_mask is None else grad_mask.to(mask.dtype)
        grad_slopes = None if grad_slopes is None else grad_slopes.to(slopes.dtype)
        return torch.cat(grad_q), torch.cat(grad_k), torch.cat(grad_v), grad_mask, None, grad_slopes, None, None


def _parts(q: Tensor) -> list[slice]:
    """Parts of the rows `r h k w`, small enough for their weights to stay in the processor's cache."""
    if torch.compiler.is_compiling():
        return [slice(None)]
    rows, heads, length, _ = q.shape
    some = max(1, _CACHED // max(1, heads * length**2))
    return [slice(row, row + some) for row in range(0, max(1, rows), some)]


def _of(tensor: Any, rows: slice) -> Any:
    """Return the rows of a tensor; all of it if it is None, or the same for all rows."""
    return tensor if tensor is None or tensor.shape[0] == 1 else tensor[rows]


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, distances: Tensor | None, slopes: Tensor | None) -> Tensor:
    """Weights before dropout, of queries that are scaled."""
    scores = q @ k.transpose(-1, -2)
    if distances is not None and slopes is not None:
        # Rounded to half precision, neighbouring distances would become equal.
        exact = torch.promote_types(scores.dtype, torch.float32)
        scores = scores.to(exact).addcmul_(distances[:, None].to(exact), slopes[:, None, None].to(exact), value=-1)
    if mask is not None:
        scores = scores.add_(_additive(mask, scores.dtype))
    return _softmax(scores, mask, q.dtype)


def _softmax(scores: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    # The sums are in single precision or better in all of these.
    if mask is None or _has_keys(mask):
        return torch.softmax(scores, -1).to(dtype)
    # "Safe": zeros, not NaN, where everything is masked, as in the fused kernels. It takes three times as long.
    exact = torch.promote_types(scores.dtype, torch.float32)
    weights: Tensor = torch.ops.aten._safe_softmax(scores, -1, dtype=exact).to(dtype)
    return weights


def _has_keys(mask: Tensor) -> bool:
    """Whether every query is known to have a key. A compiler cannot branch on values."""
    return mask.dtype == torch.bool and not torch.compiler.is_compiling() and bool(mask.any(-1).all())


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    # On a CPU, adding a row to a matrix takes less than half of the time of filling its columns.
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else mask
