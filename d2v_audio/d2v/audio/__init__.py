"""data2vec for speech and other audio."""

from d2v.audio.adapter import AudioAdapter, LogMelAdapter, WaveformAdapter
from d2v.audio.config import LogMelAdapterConfig, WaveformAdapterConfig, example_waveforms, waveform_lengths
from d2v.audio.convert import converters
from d2v.audio.data import AudioDataConfig
from d2v.audio.data_commands import check_recordings, labels, manifest
from d2v.audio.download_commands import librilight, librispeech
from d2v.audio.example import example_batch
from d2v.audio.extractor import ConvExtractor
from d2v.audio.log_mel import LogMel, LogMelFront, stacked_energies
from d2v.audio.positions import ConvPositions
from d2v.audio.tasks.classification import AudioClassification, AudioTagging
from d2v.audio.tasks.classifier import AudioClassifier, AudioTagger
from d2v.audio.tasks.ctc import CTC
from d2v.audio.tasks.ctc_model import CTCModel
from d2v.audio.tasks.mixing import SourceMixup
from d2v.audio.tasks.pooling import FrameClassifier
from d2v.audio.waveform import WaveformFront
from d2v.core.data import DataConfig
from d2v.core.modality import InputForm, Modality
from d2v.core.model import Batch, Local

__all__ = [
    "CTC",
    "AudioAdapter",
    "AudioClassification",
    "AudioClassifier",
    "AudioDataConfig",
    "AudioTagger",
    "AudioTagging",
    "CTCModel",
    "ConvExtractor",
    "ConvPositions",
    "FrameClassifier",
    "LogMel",
    "LogMelAdapter",
    "LogMelAdapterConfig",
    "LogMelFront",
    "SourceMixup",
    "WaveformAdapter",
    "WaveformAdapterConfig",
    "WaveformFront",
    "modality",
]


def _raw_frames(batch: Batch, data: DataConfig) -> Local:
    assert isinstance(data, AudioDataConfig)
    return stacked_energies(batch, data.sample_rate)


modality = Modality(
    name="audio",
    description="speech and other audio: frames of the waveform, masked in blocks (2.0) or spans (1.0)",
    extra="d2v[audio]",
    requires=("torchaudio", "soundfile"),
    optional={"d2v[decode]": ("flashlight", "kenlm")},
    adapters={"waveform": WaveformAdapterConfig, "log-mel": LogMelAdapterConfig},
    data={"recordings": AudioDataConfig},
    data_commands={
        "check-recordings": check_recordings,
        "manifest": manifest,
        "labels": labels,
        "librispeech": librispeech,
        "librilight": librilight,
    },
    recipes="d2v.audio.recipes",
    catalogue="d2v.audio",
    converters=converters,
    input=InputForm(name="input_values", example=example_waveforms, lengths=waveform_lengths),
    tasks={"ctc": CTC, "classification": AudioClassification, "tagging": AudioTagging},
    example=example_batch,
    raw_name="log-mel",
    raw_frames=_raw_frames,
)
