"""data2vec for images."""

from d2v.core.registry import Modality

__all__ = ["modality"]

modality = Modality(
    name="vision",
    description="images: patches, masked in blocks",
    extra="d2v[vision]",
    requires=("torchvision", "PIL"),
)
