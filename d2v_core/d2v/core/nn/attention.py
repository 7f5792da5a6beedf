"""Self-attention with an additive bias and key padding.

Positions enter only through the bias. `kernels` chooses the fastest implementation.
"""

import dataclasses
from typing import ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from d2v.core.nn.distances import DistanceBias
from d2v.core.nn.dropout import Dropout
from d2v.core.nn.forms import Trial, TwoForms
from d2v.core.nn.inference import packed_weights
from d2v.core.nn.kernels import attend, attention_row_by_row, row_attention_fits
from d2v.core.nn.linear import Linear
from d2v.core.nn.packing import PackedRows
from d2v.core.precision import autocast_dtype
from d2v.core.validators import check, one_of, probability

QKVBias = Literal["all", "qv", "none"]
AttentionBias = Tensor | DistanceBias
AttentionMask = AttentionBias | PackedRows
_TRIAL_TOKENS = 200


class Attention(TwoForms):
    """Multi-head self-attention with queries scaled by the inverse square root of the head width.

    Args:
        embed_dim: d, the width.
        num_heads: h, divides d.
        qkv_bias: "all", "qv" (no bias on the keys, as in the 1.0 image models) or "none".
        dropout: dropout rate of the attention weights.
        projection_dropout: dropout rate of the output.

    Raises:
        ValueError: if `num_heads` does not divide `embed_dim`, `qkv_bias` is unknown, or a probability is out of range.

    >>> Attention(8, num_heads=2)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    other_form: ClassVar[str] = "row-attention"

    def __init__(
        self,
        embed_dim: int,
        *,
        num_heads: int,
        qkv_bias: QKVBias = "all",
        dropout: float = 0.0,
        projection_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}; choose a divisor")
        check(one_of(QKVBias), qkv_bias=qkv_bias)
        check(probability, dropout=dropout)
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = Linear(embed_dim, 3 * embed_dim, bias=qkv_bias == "all")
        self.q_bias = nn.Parameter(torch.zeros(embed_dim)) if qkv_bias == "qv" else None
        self.v_bias = nn.Parameter(torch.zeros(embed_dim)) if qkv_bias == "qv" else None
        self.proj = Linear(embed_dim, embed_dim)
        self.projection_dropout = Dropout(projection_dropout)

    def forward(self, x: Tensor, mask: AttentionMask | None = None) -> Tensor:
        """Attend over the tokens of each row.

        Args:
            x: `r k d`; packed rows are `1 n d`.
            mask: output of `attention_mask`: Bool (True = attend) or an additive bias, broadcast to `r h k k`, or a
                bias by distance, or the lengths of packed rows.

        Returns:
            as x.

        Raises:
            ValueError: if a bias is for another number of heads.
        """
        bias = mask.bias if isinstance(mask, PackedRows) else mask
        if bias is not None and bias.shape[1] not in (1, self.num_heads):
            raise ValueError(
                f"an attention bias for {bias.shape[1]} heads does not fit an attention with {self.num_heads} heads"
            )
        qkv = self.qkv.with_bias(x, self._bias())
        if isinstance(mask, PackedRows):
            rows = [(row, own) for row, own in enumerate(mask.split(qkv)) if own.shape[1] > 0]
            attended = [self._attended(own, mask.bias_of(row, own.dtype)) for row, own in rows]
            y = torch.cat(attended, 1) if attended else torch.zeros_like(x)
        else:
            y = self._attended(qkv, mask)
        projected: Tensor = self.proj(y)
        dropped: Tensor = self.projection_dropout(projected)
        return dropped

    def offers_other_form(self) -> bool:
        """Whether attention is computed row by row here: in inference on a CPU."""
        return packed_weights() is not None and self.qkv.weight.device.type == "cpu"

    def trial(self) -> Trial:
        """Return queries, keys and values of a row of 200 tokens, and the attention alone."""
        dtype = autocast_dtype(self.qkv.weight.device) or self.qkv.weight.dtype
        return torch.randn(1, _TRIAL_TOKENS, self.qkv.out_features, dtype=dtype), lambda x: self._attended(x, None)

    def _attended(self, qkv: Tensor, mask: Tensor | DistanceBias | None) -> Tensor:
        """Compute `r k (h w)` of queries, keys and values `r k (three h w)`."""
        qkv = rearrange(qkv, "r k (three h w) -> three r h k w", three=3, h=self.num_heads)
        if self.switched and not isinstance(mask, DistanceBias) and row_attention_fits(qkv, mask):
            y = attention_row_by_row(qkv, mask)
        else:
            y = attend(qkv, mask, self.dropout if self.training else 0.0)
        return rearrange(y, "r h k w -> r k (h w)")

    def _bias(self) -> Tensor | None:
        if self.q_bias is None or self.v_bias is None:
            return self.qkv.bias
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])


def attention_mask(x: Tensor, bias: AttentionMask | None, padding: Tensor | None) -> AttentionMask | None:
    """Combine an additive bias and key padding into one mask for the attention kernel.

    Args:
        x: `r k d`, the tokens (to check shapes).
        bias: `r h k k`, all axes except the last may be 1, or a bias by distance, or None.
        padding: Bool `r k`, True = padding, or None.

    Returns:
        Bool `r 1 1 k` (True = attend), a float `r h k k` with -inf at padded keys, a bias by distance, or None; the
        lengths of packed rows as they are.

    Raises:
        ValueError: if a shape does not fit the tokens.
    """
    if isinstance(bias, PackedRows):
        return bias
    check_bias(x, bias)
    if padding is None:
        return bias
    rows, length = x.shape[:2]
    if padding.shape != (rows, length):
        raise ValueError(f"padding has shape {tuple(padding.shape)}; the tokens need ({rows}, {length})")
    if isinstance(bias, DistanceBias):
        return dataclasses.replace(bias, padding=padding if bias.padding is None else bias.padding | padding)
    padded = padding[:, None, None, :]
    return ~padded if bias is None else bias.masked_fill(padded, -torch.inf)


def check_bias(x: Tensor, bias: AttentionBias | None) -> None:
    """Refuse a bias that does not fit tokens `r k d`.

    Raises:
        ValueError: if it is not `r h k k`, where all axes except the last may be 1.
    """
    rows, length = x.shape[:2]
    if bias is not None and (
        len(bias.shape) != 4
        or bias.shape[0] not in (1, rows)
        or bias.shape[2] not in (1, length)
        or bias.shape[3] != length
    ):
        raise ValueError(
            f"attention bias has shape {tuple(bias.shape)}; {rows} rows of {length} tokens need "
            f"(1 or {rows}, heads, {length}, {length})"
        )
