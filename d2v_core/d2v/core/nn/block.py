"""Transformer block in the three norm variants of data2vec models.

A block returns its feed-forward branch in addition to its output, because the teacher's targets use that branch.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from d2v.core.nn.attention import Attention, AttentionMask, QKVBias, attention_mask
from d2v.core.nn.dropout import Dropout
from d2v.core.nn.initialisation import initialise
from d2v.core.nn.linear import Linear
from d2v.core.nn.recompute import GELU, recomputed
from d2v.core.validators import check, one_of, probability

NormForm = Literal["post", "pre", "pre_lossy"]
Activation = Literal["gelu", "relu", "gelu_new"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": GELU,
    "relu": nn.ReLU,
    "gelu_new": lambda: GELU(approximate="tanh"),
}


class TransformerBlock(nn.Module):
    """Attention and feed-forward network with residuals.

    With dp = drop path, g = layer scale and do = dropout:

    - "post": a = LN1(x + dp(g1 attn(x))); f = g2 FFN(a); out = LN2(a + dp(do(f)))
    - "pre": a = x + dp(g1 attn(LN1(x))); f = g2 FFN(LN2(a)); out = a + dp(do(f))
    - "pre_lossy": as "pre", but out = f + dp(do(f)), as the original data2vec 2.0 code computes pre-norm models. The
      stream before the second residual is lost; this variant exists to load such checkpoints.

    Args:
        embed_dim: d, the width.
        num_heads: h, divides d.
        mlp_ratio: width of the feed-forward network as a multiple of d, rounded down.
        activation: activation of the feed-forward network: "gelu" (all published models), "relu", or "gelu_new", the
            tanh approximation of GELU (Hugging Face's name).
        norm: "post" (2.0, and 1.0 speech and text), "pre" (1.0 images) or "pre_lossy".
        norm_eps: epsilon of both norms.
        norm_affine: whether the norms have weights.
        qkv_bias: see `Attention`.
        layer_scale: initial value of a learned factor for each channel of both branches; None = no layer scale.
        attention_dropout: dropout rate of the attention weights.
        projection_dropout: dropout rate of the attention output.
        activation_dropout: dropout rate after the activation.
        branch_dropout: dropout rate after the second linear layer of the feed-forward network, inside the branch.
        dropout: dropout rate of the feed-forward branch before its residual.
        drop_path_rate: probability that a branch is dropped, per row.

    Raises:
        ValueError: if `norm` or `activation` is unknown, a probability is outside [0, 1) or `num_heads` does not divide
            `embed_dim`.

    >>> out, branch = TransformerBlock(8, num_heads=2)(torch.zeros(3, 5, 8))
    >>> out.shape, branch.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 5, 8]))
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        num_heads: int,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
        norm: NormForm = "post",
        norm_eps: float = 1e-6,
        norm_affine: bool = True,
        qkv_bias: QKVBias = "all",
        layer_scale: float | None = None,
        attention_dropout: float = 0.0,
        projection_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        branch_dropout: float = 0.0,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check(one_of(NormForm), norm=norm)
        check(one_of(Activation), activation=activation)
        check(probability, drop_path_rate=drop_path_rate)
        self.norm = norm
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps, elementwise_affine=norm_affine)
        self.attn = Attention(
            embed_dim,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            dropout=attention_dropout,
            projection_dropout=projection_dropout,
        )
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps, elementwise_affine=norm_affine)
        # A ratio that was computed from a width must give exactly that width, despite rounding.
        hidden_dim = int(embed_dim * mlp_ratio + 1e-6)
        last = Linear(hidden_dim, embed_dim)
        self.mlp = nn.Sequential(
            Linear(embed_dim, hidden_dim),
            _ACTIVATIONS[activation](),
            Dropout(activation_dropout),
            last,
            Dropout(branch_dropout),
        )
        self.last_linears = (self.attn.proj, last)
        self.scale1 = None if layer_scale is None else nn.Parameter(torch.full((embed_dim,), layer_scale))
        self.scale2 = None if layer_scale is None else nn.Parameter(torch.full((embed_dim,), layer_scale))
        self.dropout = Dropout(dropout)
        self.drop_path_rate = drop_path_rate
        initialise(self, "normal")

    def forward(
        self, x: Tensor, bias: AttentionMask | None = None, padding: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the block.

        Args:
            x: `r k d`.
            bias: additive attention bias `r h k k`, r and h may be 1, or a bias by distance, or None; or the
                output of `attention_mask`.
            padding: Bool `r k`, True = padding, or None.

        Returns:
            (out, branch), both `r k d`: the block's output, and the feed-forward branch after layer scale and before
            dropout, drop path and residual.
        """
        mask = attention_mask(x, bias, padding)
        if self.norm == "post":
            a = recomputed(self.norm1, x + self._dropped(self._attend(x, mask)))
            branch = self._feed(a)
            return recomputed(self.norm2, a + self._dropped(self.dropout(branch))), branch
        a = x + self._dropped(self._attend(recomputed(self.norm1, x), mask))
        branch = self._feed(recomputed(self.norm2, a))
        residual = branch if self.norm == "pre_lossy" else a
        return residual + self._dropped(self.dropout(branch)), branch

    def _attend(self, x: Tensor, mask: AttentionMask | None) -> Tensor:
        y: Tensor = self.attn(x, mask)
        return y if self.scale1 is None else self.scale1 * y

    def _feed(self, x: Tensor) -> Tensor:
        first, activation = self.mlp[0], self.mlp[1]
        exact = type(activation) is GELU and activation.approximate == "none"
        if exact and isinstance(first, Linear) and first.packs(x):
            y: Tensor = self.mlp[2:](first.with_gelu(x))
        else:
            y = self.mlp(x)
        return y if self.scale2 is None else self.scale2 * y

    def _dropped(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path_rate == 0:
            return branch
        keep = 1 - self.drop_path_rate
        kept = torch.empty(branch.shape[0], 1, 1, device=branch.device, dtype=branch.dtype).bernoulli_(keep)
        return branch * kept / keep
