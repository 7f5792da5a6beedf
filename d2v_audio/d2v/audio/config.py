"""Configurations of the speech adapters."""

from typing import ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from d2v.audio.adapter import AudioAdapter, LogMelAdapter, WaveformAdapter
from d2v.audio.extractor import WAV2VEC_LAYERS, ConvSpec, ExtractorNorm, reach_of
from d2v.core.model import AdapterParts, AlibiConfig, EncoderConfig


@frozen(kw_only=True)
class AudioAdapterParts(AdapterParts):
    """Settings that speech adapters share; `AudioAdapter` describes them, for the common ones see `AdapterParts`."""

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


@frozen(kw_only=True)
class WaveformAdapterConfig(AudioAdapterParts):
    """Configuration of `WaveformAdapter`.

    >>> from d2v.core.model import BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> adapter = WaveformAdapterConfig(conv_layers=((8, 10, 5),), positions_groups=4).build(encoder)
    >>> adapter.front.num_frames(100)
    19
    """

    described_by: ClassVar[tuple[type, ...]] = (WaveformAdapter, AudioAdapter)

    conv_layers: tuple[ConvSpec, ...] = WAV2VEC_LAYERS
    extractor_norm: ExtractorNorm = "layer"
    conv_bias: bool = False
    norm_eps: float = 1e-5

    @property
    def shortest(self) -> int:
        """Number of samples of the shortest recording with two frames."""
        return reach_of(self.conv_layers, frames=2)

    def build(self, encoder: EncoderConfig) -> WaveformAdapter:
        """Build the adapter for a shared encoder."""
        return WaveformAdapter(**self.arguments(encoder))


@frozen(kw_only=True)
class LogMelAdapterConfig(AudioAdapterParts):
    """Configuration of `LogMelAdapter`.

    >>> from d2v.core.model import BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> LogMelAdapterConfig().build(encoder).front.num_frames(16000)
    23
    """

    described_by: ClassVar[tuple[type, ...]] = (LogMelAdapter, AudioAdapter)

    conv_layers: tuple[ConvSpec, ...] = ((128, 3, 2), (128, 3, 2))
    sample_rate: int = 16_000
    num_bands: int = 40
    window: float = 0.025
    hop: float = 0.01
    min_frequency: float = 40.0
    gradient_scale: float = 0.0

    @property
    def shortest(self) -> int:
        """Number of samples of the shortest recording with two frames."""
        window, hop = round(self.window * self.sample_rate), round(self.hop * self.sample_rate)
        return window + (reach_of(self.conv_layers, frames=2) - 1) * hop

    def build(self, encoder: EncoderConfig) -> LogMelAdapter:
        """Build the adapter for a shared encoder."""
        return LogMelAdapter(**self.arguments(encoder))


def example_waveforms(config: WaveformAdapterConfig | LogMelAdapterConfig) -> Tensor:
    """Two recordings `b s` of some frames."""
    return torch.zeros(2, 5 * config.shortest)


def waveform_lengths(config: WaveformAdapterConfig | LogMelAdapterConfig) -> tuple[int, None]:
    """Shortest recording in samples, of two frames since a graph of one would be another; there is no longest."""
    return config.shortest, None
