"""Configuration of a speech adapter."""

from typing import ClassVar

from attrs import field, frozen

from d2v.audio.adapter import WaveformAdapter
from d2v.audio.waveform import WAV2VEC_LAYERS, ConvSpec, ExtractorNorm
from d2v.core.model import AdapterParts, AlibiConfig, EncoderConfig


@frozen(kw_only=True)
class WaveformAdapterConfig(AdapterParts):
    """Configuration of `WaveformAdapter`, which describes the fields; for the common ones see `AdapterParts`.

    >>> from d2v.core.model import BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> adapter = WaveformAdapterConfig(conv_layers=((8, 10, 5),), positions_groups=4).build(encoder)
    >>> adapter.front.extractor.num_frames(100)
    19
    """

    described_by: ClassVar[tuple[type, ...]] = (WaveformAdapter,)

    conv_layers: tuple[ConvSpec, ...] = WAV2VEC_LAYERS
    extractor_norm: ExtractorNorm = "layer"
    conv_bias: bool = False
    positions_width: int = 95
    positions_depth: int = 5
    positions_groups: int = 16
    alibi: AlibiConfig | None = field(factory=AlibiConfig)
    mask_token: bool = False
    dropout: float = 0.0
    channels_first: bool = False
    zero_padding: bool = False

    @property
    def dims(self) -> int:
        """Number of axes of the grid."""
        return 1

    @property
    def pixel_dim(self) -> int:
        """0: waveforms are not reconstructed."""
        return 0

    def build(self, encoder: EncoderConfig) -> WaveformAdapter:
        """Build the adapter for a shared encoder."""
        return WaveformAdapter(**self.arguments(encoder))
