"""data2vec for speech and other sound."""

from d2v.core.registry import Modality

__all__ = ["modality"]

modality = Modality(
    name="audio",
    description="speech and other sound: frames of the waveform, masked in spans",
    extra="d2v[audio]",
    requires=("torchaudio",),
)
