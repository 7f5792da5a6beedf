"""data2vec for speech and other audio."""

from d2v.audio.adapter import WaveformAdapter
from d2v.audio.config import WaveformAdapterConfig
from d2v.audio.convert import converters
from d2v.audio.data import AudioDataConfig
from d2v.audio.data_commands import check_recordings, labels, manifest
from d2v.audio.positions import ConvPositions
from d2v.audio.tasks.classification import AudioClassification, AudioTagging
from d2v.audio.tasks.classifier import AudioClassifier, AudioTagger
from d2v.audio.tasks.ctc import CTC
from d2v.audio.tasks.ctc_model import CTCModel
from d2v.audio.tasks.mixing import SourceMixup
from d2v.audio.tasks.pooling import FrameClassifier
from d2v.audio.waveform import WaveformExtractor, WaveformFront
from d2v.core.modality import Modality

__all__ = [
    "CTC",
    "AudioClassification",
    "AudioClassifier",
    "AudioDataConfig",
    "AudioTagger",
    "AudioTagging",
    "CTCModel",
    "ConvPositions",
    "FrameClassifier",
    "SourceMixup",
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
    recipes="d2v.audio.recipes",
    data_commands={"check-recordings": check_recordings, "manifest": manifest, "labels": labels},
    converters=converters,
    tasks={"ctc": CTC, "classification": AudioClassification, "tagging": AudioTagging},
)
