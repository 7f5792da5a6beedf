"""What an image adapter is made of."""

from typing import Any, Literal

from attrs import field, frozen
from torch import nn

from d2v.core.model import AdapterParts, EncoderConfig, ExtraTokens, MaskToken
from d2v.vision.adapter import ImageAdapter
from d2v.vision.patches import PatchEmbedding
from d2v.vision.positions import BiasTables, LearnedPositions, RelativeBias, SinCosPositions


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@frozen(kw_only=True)
class ImageAdapterConfig(AdapterParts):
    """Adapter of images; the defaults are those of the 2.0 models. See `AdapterParts` for the common fields.

    Args:
        image_size: pixels, or (h, w).
        patch_size: pixels, or (h, w).
        channels: c.
        width: of the patch embedding where it differs from the model's.
        positions: "sincos" = fixed, "learned", or None.
        relative_bias: "shared" by all layers, one for each "layer", "both", or None.
        mask_token: whether there is a learned vector for hidden patches that are kept.

    Raises:
        ValueError: if there are two kinds of attention bias.

    >>> from d2v.core.model import BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> ImageAdapterConfig(image_size=8, patch_size=4).build(encoder).extra_tokens().shape
    torch.Size([1, 1, 16])
    """

    image_size: tuple[int, int] = field(converter=_pair)
    patch_size: tuple[int, int] = field(converter=_pair)
    channels: int = 3
    width: int | None = None
    positions: Literal["sincos", "learned"] | None = "sincos"
    relative_bias: BiasTables | None = None
    extra_tokens: int = 1
    first_token_zero: bool = False
    mask_token: bool = False

    def __attrs_post_init__(self) -> None:
        if self.alibi is not None and self.relative_bias is not None:
            raise ValueError(
                f"relative_bias={self.relative_bias!r} and alibi are both given; choose one attention bias"
            )

    @property
    def dims(self) -> int:
        """Axes of the grid."""
        return 2

    @property
    def pixel_dim(self) -> int:
        """p, numbers of a patch."""
        return self.channels * self.patch_size[0] * self.patch_size[1]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) in patches."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    def build(self, encoder: EncoderConfig) -> ImageAdapter:
        """The adapter for a shared encoder."""
        embed_dim = encoder.embed_dim
        front = PatchEmbedding(
            embed_dim,
            image_size=self.image_size,
            patch_size=self.patch_size,
            channels=self.channels,
            width=self.width,
            gradient_scale=self.gradient_scale,
        )
        return ImageAdapter(
            front,
            patch_size=self.patch_size,
            positions=self._positions(embed_dim),
            mask_token=MaskToken(embed_dim) if self.mask_token else None,
            **self.parts(encoder),
        )

    def parts(self, encoder: EncoderConfig) -> dict[str, Any]:
        """As of every adapter, with the relative bias if there is one."""
        parts = AdapterParts.parts(self, encoder)
        if self.relative_bias is None:
            return parts
        own = self.num_layers(encoder) if self.relative_bias in ("layer", "both") else 0
        shared = self.relative_bias in ("shared", "both")
        return parts | {"bias": RelativeBias(self.grid, encoder.num_heads, num_layers=own, shared=shared)}

    def build_extra_tokens(self, embed_dim: int) -> ExtraTokens:
        """The extra tokens, with positions of their own where patches have learned ones."""
        return ExtraTokens(
            self.extra_tokens,
            embed_dim,
            std=self.extra_tokens_std,
            first_zero=self.first_token_zero,
            positions=self.positions == "learned",
        )

    def _positions(self, embed_dim: int) -> nn.Module | None:
        if self.positions is None:
            return None
        if self.positions == "sincos":
            return SinCosPositions(embed_dim, self.grid)
        return LearnedPositions(embed_dim, self.grid[0] * self.grid[1])
