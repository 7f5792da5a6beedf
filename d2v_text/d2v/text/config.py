"""What a text adapter is made of."""

from typing import Any, Literal

from attrs import frozen

from d2v.core.model import AlibiConfig, ContextConfig, EncoderConfig, ExtraTokens, ModalityAdapter
from d2v.text.adapter import MaskedTextAdapter
from d2v.text.tokens import TokenEmbedding


@frozen(kw_only=True)
class TextAdapterConfig:
    """Adapter of token ids; the defaults are those of the 2.0 models.

    Args:
        vocabulary_size: rows of the token table.
        max_length: longest sequence, in tokens.
        padding_id: id of the padding token.
        mask_id: id of the mask token, which replaces hidden tokens that are kept (1.0); None = hidden tokens are
            dropped.
        positions: "learned", "sinusoidal" or None.
        scale_embedding: whether token vectors are multiplied by the square root of the width.
        norm: whether a norm follows the embedding.
        embedding_dropout: after that norm.
        gradient_scale: factor of the gradient that reaches the embeddings.
        alibi: distance bias, or None.
        extra_tokens: e.
        first_token_zero: whether the first extra token starts at zero.
        context: what runs before the shared encoder, or None.
        noise_std: noise put at hidden tokens that are kept, without `mask_id`.
        zero_padding: whether padded positions are set to zero (1.0).
    """

    vocabulary_size: int
    max_length: int = 512
    padding_id: int = 1
    mask_id: int | None = None
    positions: Literal["learned", "sinusoidal"] | None = "learned"
    scale_embedding: bool = False
    norm: bool = True
    embedding_dropout: float = 0.1
    gradient_scale: float = 1.0
    alibi: AlibiConfig | None = None
    extra_tokens: int = 0
    first_token_zero: bool = True
    context: ContextConfig | None = None
    noise_std: float = 0.0
    zero_padding: bool = False

    @property
    def dims(self) -> int:
        """Axes of the grid."""
        return 1

    @property
    def pixel_dim(self) -> int:
        """None: tokens are not reconstructed."""
        return 0

    def build(self, encoder: EncoderConfig) -> ModalityAdapter:
        """The adapter for a shared encoder."""
        dim, heads = encoder.block.dim, encoder.block.num_heads
        num_layers = encoder.depth + (0 if self.context is None else self.context.depth)
        front = TokenEmbedding(
            self.vocabulary_size,
            dim=dim,
            max_length=self.max_length,
            padding_id=self.padding_id,
            positions=self.positions,
            scale=dim**0.5 if self.scale_embedding else 1.0,
            norm=self.norm,
            dropout=self.embedding_dropout,
            gradient_scale=self.gradient_scale,
        )
        parts: dict[str, Any] = {
            "bias": None if self.alibi is None else self.alibi.build(num_heads=heads, num_layers=num_layers),
            "extra_tokens": ExtraTokens(self.extra_tokens, dim, first_zero=self.first_token_zero)
            if self.extra_tokens
            else None,
            "context": None if self.context is None else self.context.build(encoder),
            "zero_padding": self.zero_padding,
        }
        if self.mask_id is not None:
            return MaskedTextAdapter(front, mask_id=self.mask_id, **parts)
        return ModalityAdapter(front, noise_std=self.noise_std, **parts)
