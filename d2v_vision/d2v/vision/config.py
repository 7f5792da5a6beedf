"""What an image adapter is made of."""

from typing import Literal

from attrs import field, frozen
from torch import nn

from d2v.core.model import AlibiConfig, ContextConfig, EncoderConfig, ExtraTokens, MaskToken
from d2v.vision.adapter import ImageAdapter
from d2v.vision.patches import PatchEmbedding
from d2v.vision.positions import BiasTables, LearnedPositions, RelativeBias, SinCosPositions


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@frozen(kw_only=True)
class ImageAdapterConfig:
    """Adapter of images; the defaults are those of the 2.0 models.

    Args:
        image_size: pixels, or (h, w).
        patch_size: pixels, or (h, w).
        channels: c.
        width: of the patch embedding where it differs from the model's.
        positions: "sincos" = fixed, "learned", or None.
        relative_bias: "shared" by all layers, one for each "layer", "both", or None.
        alibi: distance bias, or None.
        extra_tokens: e; the last one is the class token.
        extra_tokens_std: standard deviation of their initial values.
        first_token_zero: whether the first extra token starts at zero.
        mask_token: whether there is a learned vector for hidden patches that are kept.
        context: what runs before the shared encoder, or None.
        noise_std: without mask token, the noise put at hidden patches that are kept.
        gradient_scale: factor of the gradient that reaches the patch embedding.
    """

    image_size: tuple[int, int] = field(converter=_pair)
    patch_size: tuple[int, int] = field(converter=_pair)
    channels: int = 3
    width: int | None = None
    positions: Literal["sincos", "learned"] | None = "sincos"
    relative_bias: BiasTables | None = None
    alibi: AlibiConfig | None = None
    extra_tokens: int = 1
    extra_tokens_std: float = 1.0
    first_token_zero: bool = False
    mask_token: bool = False
    context: ContextConfig | None = field(factory=ContextConfig)
    noise_std: float = 0.0
    gradient_scale: float = 1.0

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
        dim = encoder.block.dim
        front = PatchEmbedding(
            dim,
            image_size=self.image_size,
            patch_size=self.patch_size,
            channels=self.channels,
            width=self.width,
            gradient_scale=self.gradient_scale,
        )
        return ImageAdapter(
            front,
            patch_size=self.patch_size,
            positions=self._positions(dim),
            bias=self._bias(encoder),
            extra_tokens=self._extra_tokens(dim),
            mask_token=MaskToken(dim) if self.mask_token else None,
            context=None if self.context is None else self.context.build(encoder),
            noise_std=self.noise_std,
        )

    def _positions(self, dim: int) -> nn.Module | None:
        if self.positions is None:
            return None
        if self.positions == "sincos":
            return SinCosPositions(dim, self.grid)
        return LearnedPositions(dim, self.grid[0] * self.grid[1])

    def _bias(self, encoder: EncoderConfig) -> nn.Module | None:
        num_layers = encoder.depth + (0 if self.context is None else self.context.depth)
        if self.alibi is not None:
            return self.alibi.build(num_heads=encoder.block.num_heads, num_layers=num_layers)
        if self.relative_bias is None:
            return None
        own = num_layers if self.relative_bias in ("layer", "both") else 0
        return RelativeBias(
            self.grid, encoder.block.num_heads, num_layers=own, shared=self.relative_bias in ("shared", "both")
        )

    def _extra_tokens(self, dim: int) -> ExtraTokens | None:
        if self.extra_tokens == 0:
            return None
        return ExtraTokens(
            self.extra_tokens,
            dim,
            std=self.extra_tokens_std,
            first_zero=self.first_token_zero,
            positions=self.positions == "learned",
        )
