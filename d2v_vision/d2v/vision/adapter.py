"""The adapter of images."""

from typing import Any

from torch import Tensor

from d2v.core.model import Batch, ModalityAdapter
from d2v.vision.patches import PatchEmbedding, normalised_pixels
from d2v.vision.positions import RelativeBias, SinCosPositions


class ImageAdapter(ModalityAdapter):
    """Images to tokens; see `ModalityAdapter` for the parts.

    Args:
        front: the patch embedding.
        patch_size: (h, w) in pixels, for the reconstruction loss.
        parts: the other parts of `ModalityAdapter`.
    """

    front: PatchEmbedding

    def __init__(self, front: PatchEmbedding, *, patch_size: tuple[int, int], **parts: Any) -> None:
        super().__init__(front, **parts)
        self.patch_size = patch_size

    def pixels(self, batch: Batch) -> Tensor:
        """Normalised pixels of each patch, `b t p`."""
        return normalised_pixels(batch.source, self.patch_size)

    def resize(self, image_size: tuple[int, int]) -> None:
        """Take images of another size from now on, in place: fixed positions are computed anew for the new grid.

        Patches keep their size, so there are more or fewer of them. For the present size nothing changes.

        Args:
            image_size: (h, w) in pixels, multiples of the patch.

        Raises:
            ValueError: if the patch does not divide the size, or positions or bias are learned for one grid.

        >>> from d2v.core.model import BlockConfig, TransformerConfig
        >>> from d2v.vision import ImageAdapterConfig
        >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
        >>> adapter = ImageAdapterConfig(image_size=8, patch_size=4).build(encoder)
        >>> adapter.resize((16, 8))
        >>> adapter.positions(None, None).shape
        torch.Size([1, 8, 16])
        """
        old, (height, width) = self.front.image_size, image_size
        if (height, width) == old:
            return
        rows, columns = self.patch_size
        if height < rows or width < columns or height % rows or width % columns:
            raise ValueError(f"{height}x{width} pixels are no multiple of the patch, {rows}x{columns}")
        if isinstance(self.bias, RelativeBias):
            raise ValueError(
                f"its relative bias is learned for {old[0]}x{old[1]} pixels and allows no other size, "
                f"not {height}x{width}"
            )
        if self.positions is not None:
            if not isinstance(self.positions, SinCosPositions):
                raise ValueError(
                    f"its positions are learned for {old[0]}x{old[1]} pixels and allow no other size, "
                    f"not {height}x{width}"
                )
            self.positions.fit((height // rows, width // columns))
        self.front.image_size = (height, width)
