"""Token embedding: the front end of text models."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from attrs.validators import optional
from torch import Tensor, nn

from d2v.core.model import Batch, Layout, Local
from d2v.core.nn import Dropout
from d2v.core.nn.gradients import scale_gradient
from d2v.core.validators import check, one_of

PositionForm = Literal["learned", "sinusoidal"]


class TokenEmbedding(nn.Module):
    """Sum of token and position embedding, followed by norm and dropout.

    The position of a token is the number of tokens up to it that are not padding, plus the padding id. Padding has the
    padding id as its position; these rows are zero and stay zero.

    Args:
        vocabulary_size: rows of the token table.
        embed_dim: d.
        max_length: longest sequence, in tokens.
        padding_id: id of the padding token.
        positions: "learned", "sinusoidal" or None.
        scale: factor of the token vectors.
        norm: whether a norm follows.
        norm_eps: epsilon of that norm.
        dropout: dropout of the result.
        gradient_scale: factor of the gradient that reaches the embeddings.

    >>> front = TokenEmbedding(10, embed_dim=8, max_length=5)
    >>> local = front(Batch(source=torch.tensor([[0, 5, 2, 1]])))
    >>> local.x.shape, local.padding
    (torch.Size([1, 4, 8]), tensor([[False, False, False,  True]]))
    """

    sinusoids: Tensor | None

    def __init__(
        self,
        vocabulary_size: int,
        *,
        embed_dim: int,
        max_length: int = 512,
        padding_id: int = 1,
        positions: PositionForm | None = "learned",
        scale: float = 1.0,
        norm: bool = True,
        norm_eps: float = 1e-5,
        dropout: float = 0.0,
        gradient_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check(optional(one_of(PositionForm)), positions=positions)
        self.padding_id = padding_id
        self.max_length = max_length
        self.scale = scale
        self.gradient_scale = gradient_scale
        rows = max_length + padding_id + 1
        self.tokens = nn.Embedding(vocabulary_size, embed_dim, padding_idx=padding_id)
        self.positions = nn.Embedding(rows, embed_dim, padding_idx=padding_id) if positions == "learned" else None
        sinusoids = _sinusoids(rows, embed_dim, padding_id) if positions == "sinusoidal" else None
        self.register_buffer("sinusoids", sinusoids, persistent=False)
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if norm else None
        self.dropout = Dropout(dropout)
        for table in (self.tokens, self.positions):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
                table.weight.data[padding_id] = 0

    def forward(self, batch: Batch) -> Local:
        """Features of token ids `b t`.

        Raises:
            ValueError: if the source is not integers `b t`, or is longer than the model's positions.
        """
        ids, padding = self._checked(batch), self._padding(batch)
        x = self.tokens(ids)
        x = x if self.scale == 1 else x * self.scale
        position = (~padding).cumsum(1) * ~padding + self.padding_id
        if self.positions is not None:
            x = x + self.positions(position)
        elif self.sinusoids is not None:
            x = x + F.embedding(position, self.sinusoids)
        x = x if self.norm is None else self.norm(x)
        return Local(x=scale_gradient(self.dropout(x), self.gradient_scale), padding=padding, grid=(ids.shape[1],))

    def layout(self, batch: Batch) -> Layout:
        """Return the positions of ids `b t`, and their padding.

        Raises:
            ValueError: if the source is not integers `b t`, or is longer than the model's positions.
        """
        return Layout(grid=(self._checked(batch).shape[1],), padding=self._padding(batch))

    def _padding(self, batch: Batch) -> Tensor:
        return batch.source == self.padding_id if batch.padding is None else batch.padding

    def _checked(self, batch: Batch) -> Tensor:
        ids = batch.source
        if ids.dim() != 2 or ids.is_floating_point():
            raise ValueError(f"token ids must be integers of shape b t, not {ids.dtype} {tuple(ids.shape)}")
        if ids.shape[1] > self.max_length:
            raise ValueError(
                f"{ids.shape[1]} tokens are more than the model's {self.max_length}; cut or split the text"
            )
        return ids


def _sinusoids(rows: int, embed_dim: int, padding_id: int) -> Tensor:
    half = embed_dim // 2
    frequencies = torch.exp(torch.arange(half) * -(math.log(10000) / max(half - 1, 1)))
    angles = torch.arange(rows)[:, None] * frequencies
    table = torch.cat([angles.sin(), angles.cos()], 1)
    table = F.pad(table, (0, embed_dim - 2 * half))
    table[padding_id] = 0
    return table
