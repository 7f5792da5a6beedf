"""Attention with dropout on its weights, for CPUs, which have no fused kernel with dropout.

The general formulation saves three square matrices per layer for the backward pass. This one saves the weights and one
byte per weight.
"""

from typing import Any

import torch
from torch import Tensor


def dropped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kept: Tensor, fraction: float) -> Tensor:
    """Compute softmax(q k^T / sqrt(width) + mask) v, with kept weights divided by `fraction` and the others zero.

    Args:
        q: `r h k w`.
        k: `r h k w`.
        v: `r h k w`.
        mask: Bool (True = attend) or an additive bias, broadcast to `r h k k`, or None.
        kept: Bool `r h k k`.
        fraction: probability that a weight is kept.

    Returns:
        `r h k w`.

    >>> q, k, v = torch.randn(3, 2, 4, 5, 8)
    >>> kept = torch.rand(2, 4, 5, 5) < 0.5
    >>> dropped_attention(q, k, v, None, kept, 0.5).shape
    torch.Size([2, 4, 5, 8])
    """
    return _DroppedAttention.apply(q, k, v, mask, kept, fraction)  # type: ignore[no-any-return]  # torch does not type apply


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kept: Tensor, fraction: float
    ) -> Tensor:
        q = q * q.shape[-1] ** -0.5
        scores = q @ k.transpose(-1, -2)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill_(~mask, -torch.inf)
        elif mask is not None:
            scores = scores.add_(mask)
        # "Safe": zeros, not NaN, where everything is masked, as in the fused kernels.
        exact = torch.promote_types(scores.dtype, torch.float32)
        weights = torch.ops.aten._safe_softmax(scores, -1, dtype=exact).to(v.dtype)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.fraction = fraction
        ctx.bias = None if mask is None or mask.dtype == torch.bool else mask.shape
        return torch.where(kept, weights, 0).div_(fraction) @ v

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, weights, kept = ctx.saved_tensors
        grad = grads[0] / ctx.fraction
        grad_v = torch.where(kept, weights, 0).transpose(-1, -2) @ grad
        grad_scores = (grad @ v.transpose(-1, -2)).masked_fill_(~kept, 0).mul_(weights)
        # The derivative of softmax subtracts the component that all weights of a row share.
        grad_scores = torch.addcmul(grad_scores, weights, grad_scores.sum(-1, keepdim=True), value=-1)
        grad_q = (grad_scores @ k).mul_(q.shape[-1] ** -0.5)
        grad_k = grad_scores.transpose(-1, -2) @ q
        wants_bias = ctx.needs_input_grad[3] and ctx.bias is not None
        return grad_q, grad_k, grad_v, grad_scores.sum_to_size(ctx.bias) if wants_bias else None, None, None
