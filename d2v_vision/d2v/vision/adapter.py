"""The adapter for images."""

from typing import Literal

from torch import Tensor, nn

from d2v.core.model import Batch, ExtraTokens, MaskToken, ModalityAdapter
from d2v.core.model.adapter import Context, as_context
from d2v.core.validators import check, one_of
from d2v.vision.patches import PatchEmbedding, normalised_pixels
from d2v.vision.positions import LearnedPositions, RelativeBias, SinCosPositions

PositionForm = Literal["sincos", "learned"]


class ImageAdapter(ModalityAdapter):
    """Convert images to tokens; the defaults are those of the 2.0 models. `ModalityAdapter` describes the parts.

    Args:
        image_size: pixels, or (h, w).
        patch_size: pixels, or (h, w); divides the image.
        embed_dim: d.
        channels: c.
        width: width of the patch embedding, if it differs from d.
        positions: "sincos" = fixed, "learned", or None.
        extra_tokens: e; the last one is the class token. They have learned positions if the patches have.
        extra_tokens_std: standard deviation of their initial values.
        first_token_zero: whether the first extra token is initialised to zero.
        mask_token: whether there is a learned vector for hidden patches that are kept.
        bias: attention bias, such as `RelativeBias` or `Alibi`, or None.
        context: layers before the shared encoder: "norm" = only a layer norm.
        noise_std: standard deviation of the noise at hidden patches that are kept, if there is no mask token.
        gradient_scale: factor of the gradient that reaches the patch embedding.

    Raises:
        ValueError: if the patch does not divide the image, or sine-cosine positions do not fit d.

    >>> import torch
    >>> adapter = ImageAdapter(image_size=8, patch_size=4, embed_dim=16)
    >>> adapter.front(Batch(source=torch.zeros(2, 3, 8, 8))).x.shape
    torch.Size([2, 4, 16])
    """

    modality = "vision"

    front: PatchEmbedding

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        embed_dim: int,
        channels: int = 3,
        width: int | None = None,
        positions: PositionForm | None = "sincos",
        extra_tokens: int = 1,
        extra_tokens_std: float = 1.0,
        first_token_zero: bool = False,
        mask_token: bool = False,
        bias: nn.Module | None = None,
        context: Context = "norm",
        noise_std: float = 0.0,
        gradient_scale: float = 1.0,
    ) -> None:
        image_size, patch_size = pair(image_size), pair(patch_size)
        front = PatchEmbedding(
            embed_dim,
            image_size=image_size,
            patch_size=patch_size,
            channels=channels,
            width=width,
            gradient_scale=gradient_scale,
        )
        grid = (image_size[0] // patch_size[0], image_size[1] // patch_size[1])
        tokens = ExtraTokens.of(
            extra_tokens,
            embed_dim,
            std=extra_tokens_std,
            first_zero=first_token_zero,
            positions=positions == "learned",
        )
        super().__init__(
            front,
            positions=_positions(positions, embed_dim, grid),
            mask_token=MaskToken(embed_dim) if mask_token else None,
            bias=bias,
            extra_tokens=tokens,
            context=as_context(context, embed_dim),
            noise_std=noise_std,
        )
        self.image_size, self.patch_size = image_size, patch_size

    def pixels(self, batch: Batch) -> Tensor:
        """Normalised pixels of each patch, `b t p`."""
        return normalised_pixels(batch.source, self.patch_size)

    def resize(self, image_size: tuple[int, int]) -> None:
        """Change the image size in place.

        Patches keep their size, so their number changes. Fixed positions are recomputed for the new grid; learned ones
        and a relative bias are interpolated, into new parameters. The current size changes nothing.

        Args:
            image_size: (h, w) in pixels, multiples of the patch.

        Raises:
            ValueError: if the patch does not divide the size.

        >>> adapter = ImageAdapter(image_size=8, patch_size=4, embed_dim=16)
        >>> adapter.resize((16, 8))
        >>> adapter.positions(None, None).shape
        torch.Size([1, 8, 16])
        """
        old, (height, width) = self.image_size, image_size
        if (height, width) == old:
            return
        rows, columns = self.patch_size
        if height < rows or width < columns or height % rows or width % columns:
            raise ValueError(f"{height}x{width} pixels are not a multiple of the patch, {rows}x{columns}")
        grid, before = (height // rows, width // columns), (old[0] // rows, old[1] // columns)
        for part in (self.positions, self.bias):
            if isinstance(part, SinCosPositions | LearnedPositions | RelativeBias):
                part.fit(grid, before=before)
        self.image_size = (height, width)
        if self.front is not None:  # a teacher may lack it
            self.front.image_size = self.image_size


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (h, w); one number means both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _positions(form: PositionForm | None, embed_dim: int, grid: tuple[int, int]) -> nn.Module | None:
    if form is None:
        return None
    check(one_of(PositionForm), positions=form)
    return SinCosPositions(embed_dim, grid) if form == "sincos" else LearnedPositions(embed_dim, grid[0] * grid[1])
