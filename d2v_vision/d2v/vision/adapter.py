"""The adapter of images."""

from typing import Any

from torch import Tensor

from d2v.core.model import Batch, ModalityAdapter
from d2v.vision.patches import PatchEmbedding, normalised_pixels


class ImageAdapter(ModalityAdapter):
    """Images to tokens; see `ModalityAdapter` for the parts.

    Args:
        front: the patch embedding.
        patch_size: (h, w) in pixels, for the reconstruction loss.
        parts: the other parts of `ModalityAdapter`.
    """

    def __init__(self, front: PatchEmbedding, *, patch_size: tuple[int, int], **parts: Any) -> None:
        super().__init__(front, **parts)
        self.patch_size = patch_size

    def pixels(self, batch: Batch) -> Tensor:
        """Normalised pixels of each patch, `b t p`."""
        return normalised_pixels(batch.source, self.patch_size)
