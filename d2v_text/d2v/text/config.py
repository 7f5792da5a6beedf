"""What a text adapter is made of."""

from typing import Literal

from attrs import frozen

from d2v.core.model import AdapterParts, ContextConfig, EncoderConfig, ModalityAdapter
from d2v.text.adapter import MaskedTextAdapter
from d2v.text.tokens import TokenEmbedding


@frozen(kw_only=True)
class TextAdapterConfig(AdapterParts):
    """Adapter of token ids; the defaults are those of the 2.0 models. See `AdapterParts` for the common fields.

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
        zero_padding: whether padded positions are set to zero (1.0).

    >>> from d2v.core.model import BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> TextAdapterConfig(vocabulary_size=10, max_length=8).build(encoder).front.positions.num_embeddings
    10
    """

    vocabulary_size: int
    max_length: int = 512
    padding_id: int = 1
    mask_id: int | None = None
    positions: Literal["learned", "sinusoidal"] | None = "learned"
    scale_embedding: bool = False
    norm: bool = True
    embedding_dropout: float = 0.1
    context: ContextConfig | None = None
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
        embed_dim = encoder.embed_dim
        front = TokenEmbedding(
            self.vocabulary_size,
            embed_dim=embed_dim,
            max_length=self.max_length,
            padding_id=self.padding_id,
            positions=self.positions,
            scale=embed_dim**0.5 if self.scale_embedding else 1.0,
            norm=self.norm,
            dropout=self.embedding_dropout,
            gradient_scale=self.gradient_scale,
        )
        if self.mask_id is None:
            return ModalityAdapter(front, zero_padding=self.zero_padding, **self.parts(encoder))
        return MaskedTextAdapter(front, mask_id=self.mask_id, zero_padding=self.zero_padding, **self.parts(encoder))
