"""Configuration of an image adapter."""

from typing import Any, ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from d2v.core.model import AdapterParts, EncoderConfig
from d2v.vision.adapter import ImageAdapter, PositionForm, pair
from d2v.vision.positions import BiasTables, RelativeBias


@frozen(kw_only=True)
class ImageAdapterConfig(AdapterParts):
    """Configuration of `ImageAdapter`, which describes the fields; for the common ones see `AdapterParts`.

    Args:
        relative_bias: "shared" by all layers, one for each "layer", "both", or None.

    Raises:
        ValueError: if there are two kinds of attention bias.

    >>> from d2v.core.model import BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> ImageAdapterConfig(image_size=8, patch_size=4).build(encoder).extra_tokens().shape
    torch.Size([1, 1, 16])
    """

    described_by: ClassVar[tuple[type, ...]] = (ImageAdapter,)

    image_size: tuple[int, int] = field(converter=pair)
    patch_size: tuple[int, int] = field(converter=pair)
    channels: int = 3
    width: int | None = None
    positions: PositionForm | None = "sincos"
    relative_bias: BiasTables | None = None
    extra_tokens: int = 1
    mask_token: bool = False

    def __attrs_post_init__(self) -> None:
        if self.alibi is not None and self.relative_bias is not None:
            raise ValueError(
                f"relative_bias={self.relative_bias!r} and alibi are both given; choose one attention bias"
            )

    @property
    def dims(self) -> int:
        """Number of axes of the grid."""
        return 2

    @property
    def pixel_dim(self) -> int:
        """p, values in a patch."""
        return self.channels * self.patch_size[0] * self.patch_size[1]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) in patches."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    def build(self, encoder: EncoderConfig) -> ImageAdapter:
        """Build the adapter for a shared encoder."""
        return ImageAdapter(**self.arguments(encoder))

    def arguments(self, encoder: EncoderConfig) -> dict[str, Any]:
        """Arguments as for every adapter, and the relative bias if there is one."""
        values = AdapterParts.arguments(self, encoder)
        tables = values.pop("relative_bias")
        if tables is None:
            return values
        own = self.num_layers(encoder) if tables in ("layer", "both") else 0
        shared = tables in ("shared", "both")
        return values | {"bias": RelativeBias(self.grid, encoder.num_heads, num_layers=own, shared=shared)}


def example_images(config: ImageAdapterConfig) -> Tensor:
    """Two images `b c h w` of the adapter's size."""
    return torch.zeros(2, config.channels, *config.image_size)
