"""The adapter for text."""

import dataclasses

import torch
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.model import Batch, ExtraTokens, Local, ModalityAdapter
from d2v.core.model.adapter import Context, as_context, repeat_rows
from d2v.text.tokens import PositionForm, TokenEmbedding


class TextAdapter(ModalityAdapter):
    """Convert token ids to embeddings; the defaults are those of the 2.0 models. `ModalityAdapter` describes the parts.

    With a `mask_id`, hidden tokens that are kept are replaced by that id before they are embedded (1.0).

    Args:
        vocabulary_size: rows of the token table.
        embed_dim: d.
        max_length: longest sequence, in tokens.
        padding_id: id of the padding token.
        mask_id: id of the mask token; None = hidden tokens are dropped.
        positions: "learned", "sinusoidal" or None.
        scale_embedding: whether token vectors are multiplied by the square root of d.
        norm: whether a norm follows the embedding.
        norm_eps: epsilon of that norm.
        embedding_dropout: dropout after that norm.
        extra_tokens: e; the last one is the class token.
        extra_tokens_std: standard deviation of their initial values.
        first_token_zero: whether the first extra token is initialised to zero.
        bias: attention bias, such as `Alibi(num_heads)`, or None.
        context: layers before the shared encoder: "norm" = only a layer norm.
        noise_std: standard deviation of the noise at hidden tokens that are kept, if there is no mask id.
        zero_padding: whether padded positions are set to zero (1.0).
        gradient_scale: factor of the gradient that reaches the embeddings.

    Raises:
        ValueError: if `positions` is unknown.

    >>> adapter = TextAdapter(vocabulary_size=10, embed_dim=16, max_length=8)
    >>> adapter.front(Batch(source=torch.tensor([[0, 5, 2]]))).x.shape
    torch.Size([1, 3, 16])
    """

    modality = "text"

    def __init__(
        self,
        *,
        vocabulary_size: int,
        embed_dim: int,
        max_length: int = 512,
        padding_id: int = 1,
        mask_id: int | None = None,
        positions: PositionForm | None = "learned",
        scale_embedding: bool = False,
        norm: bool = True,
        norm_eps: float = 1e-5,
        embedding_dropout: float = 0.1,
        extra_tokens: int = 0,
        extra_tokens_std: float = 1.0,
        first_token_zero: bool = False,
        bias: nn.Module | None = None,
        context: Context = None,
        noise_std: float = 0.0,
        zero_padding: bool = False,
        gradient_scale: float = 1.0,
    ) -> None:
        front = TokenEmbedding(
            vocabulary_size,
            embed_dim=embed_dim,
            max_length=max_length,
            padding_id=padding_id,
            positions=positions,
            scale=embed_dim**0.5 if scale_embedding else 1.0,
            norm=norm,
            norm_eps=norm_eps,
            dropout=embedding_dropout,
            gradient_scale=gradient_scale,
        )
        tokens = ExtraTokens.of(extra_tokens, embed_dim, std=extra_tokens_std, first_zero=first_token_zero)
        super().__init__(
            front,
            bias=bias,
            extra_tokens=tokens,
            context=as_context(context, embed_dim),
            noise_std=noise_std,
            zero_padding=zero_padding,
        )
        self.mask_id = mask_id

    def corrupt(self, batch: Batch, local: Local, mask: Mask) -> Tensor:
        """Embed the masked ids, `(b m) t d`, and zero the hidden channels; without a mask id, like any adapter."""
        if self.mask_id is None:
            return super().corrupt(batch, local, mask)
        ids = torch.where(mask.hidden, self.mask_id, repeat_rows(batch.source, mask.hidden.shape[0]))
        padding = None if batch.padding is None else repeat_rows(batch.padding, ids.shape[0])
        x = self.front(dataclasses.replace(batch, source=ids, padding=padding)).x
        return x if mask.channels is None else x.masked_fill(mask.channels[:, None], 0)
