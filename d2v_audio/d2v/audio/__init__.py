"""data2vec for speech and other audio."""

from d2v.audio.adapter import WaveformAdapter
from d2v.audio.config import WaveformAdapterConfig
from d2v.audio.convert import converters
from d2v.audio.data import AudioDataConfig
from d2v.audio.data_commands import check_recordings, labels, manifest
from d2v.audio.positions import ConvPositions
from d2v.audio.waveform import WaveformExtractor, WaveformFront
from d2v.core.modality import Modality

__all__ = [
    "AudioDataConfig",
    "ConvPositions",
    "WaveformAdapter",
    "WaveformAdapterConfig",
    "WaveformExtractor",
    "WaveformFront",
    "modality",
]

modality = Modality(
    name="audio",
    description="speech and other audio: frames of the waveform, masked in blocks (2.0) or spans (1.0)",
    extra="d2v[audio]",
    requires=("torchaudio", "soundfile"),
    adapters={"waveform": WaveformAdapterConfig},
    data={"recordings": AudioDataConfig},
    data_commands={"check-recordings": check_recordings, "manifest": manifest, "labels": labels},
    converters=converters,
)
