"""Configuration of a text adapter."""

from typing import ClassVar

import torch
from attrs import frozen
from torch import Tensor

from d2v.core.model import AdapterParts, ContextConfig, EncoderConfig
from d2v.text.adapter import TextAdapter
from d2v.text.tokens import PositionForm


@frozen(kw_only=True)
class TextAdapterConfig(AdapterParts):
    """Configuration of `TextAdapter`, which describes the fields; for the common ones see `AdapterParts`.

    >>> from d2v.core.model import BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> TextAdapterConfig(vocabulary_size=10, max_length=8).build(encoder).front.positions.num_embeddings
    10
    """

    described_by: ClassVar[tuple[type, ...]] = (TextAdapter,)

    vocabulary_size: int
    max_length: int = 512
    padding_id: int = 1
    mask_id: int | None = None
    positions: PositionForm | None = "learned"
    scale_embedding: bool = False
    norm: bool = True
    norm_eps: float = 1e-5
    embedding_dropout: float = 0.1
    context: ContextConfig | None = None
    zero_padding: bool = False

    @property
    def dims(self) -> int:
        """Number of axes of the grid."""
        return 1

    @property
    def pixel_dim(self) -> int:
        """0: tokens are not reconstructed."""
        return 0

    def build(self, encoder: EncoderConfig) -> TextAdapter:
        """Build the adapter for a shared encoder."""
        return TextAdapter(**self.arguments(encoder))


def example_ids(config: TextAdapterConfig) -> Tensor:
    """Two texts of token ids `b t`."""
    return torch.full((2, min(8, config.max_length)), (config.padding_id + 1) % config.vocabulary_size)


def text_lengths(config: TextAdapterConfig) -> tuple[int, int]:
    """Shortest and longest text in tokens."""
    return 1, config.max_length
