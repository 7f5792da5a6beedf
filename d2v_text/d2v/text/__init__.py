"""data2vec for text."""

from d2v.core.registry import Modality

__all__ = ["modality"]

modality = Modality(
    name="text",
    description="text: subword tokens, masked in blocks",
    extra="d2v[text]",
    requires=("tokenizers",),
)
