"""Log-mel spectrograms to frames: a front end that learns on a CPU, where raw waveforms take too long."""

import torch
from attrs.validators import ge
from torch import Tensor, nn

from d2v.audio.extractor import ConvExtractor
from d2v.audio.waveform import frame_padding, waveforms
from d2v.core.model import Batch, Local
from d2v.core.nn.gradients import scale_gradient
from d2v.core.validators import check

_FLOOR = 1e-6  # added to the energies before the logarithm
_EPS = 1e-5  # added to the standard deviations, for bands of silence


class LogMel(nn.Module):
    """Logarithmic energies in bands of the mel scale, standardised in each band over the recording.

    Windows are not padded at the ends, so padded samples never reach a valid frame.

    Args:
        sample_rate: of the recordings, in Hz.
        num_bands: number of bands.
        window: length of the Hann window, in samples.
        hop: samples from one window to the next.
        n_fft: length of the Fourier transform, at least `window`.
        min_frequency: lower edge of the first band, in Hz; the last band ends at half the sample rate.

    Raises:
        ValueError: if a number is out of its range.

    >>> LogMel(num_bands=20)(torch.randn(2, 16000)).shape
    torch.Size([2, 97, 20])
    """

    window: Tensor
    bands: Tensor

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        num_bands: int = 40,
        window: int = 400,
        hop: int = 160,
        n_fft: int = 512,
        min_frequency: float = 40.0,
    ) -> None:
        super().__init__()
        check(ge(1), sample_rate=sample_rate, num_bands=num_bands, window=window, hop=hop, n_fft=n_fft)
        if n_fft < window:
            raise ValueError(f"n_fft={n_fft} must be at least window={window}")
        if not 0 <= min_frequency < sample_rate / 2:
            raise ValueError(f"min_frequency={min_frequency} must be from 0 to half of sample_rate={sample_rate}")
        from torchaudio.functional import melscale_fbanks

        self.hop, self.n_fft = hop, n_fft
        bands = melscale_fbanks(n_fft // 2 + 1, min_frequency, sample_rate / 2, num_bands, sample_rate)
        # They follow from the arguments, so they are not stored with the weights.
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("bands", bands, persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Standardised log-mel energies `b t f` of waveforms `b s`, in float32.

        Args:
            waveform: `b s`, with at least `n_fft` samples.
            lengths: valid frames of each row, Long `b`; None = all. Other frames are 0.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(),
                self.n_fft,
                hop_length=self.hop,
                win_length=len(self.window),
                window=self.window,
                center=False,
                return_complex=True,
            )
            energies = spectrum.abs().square().transpose(1, 2) @ self.bands
            return _standardised((energies + _FLOOR).log(), lengths)

    def num_frames(self, samples: int) -> int:
        """Number of frames of a recording with `samples` samples."""
        return max(samples - self.n_fft, -self.hop) // self.hop + 1


class LogMelFront(nn.Module):
    """Front end for speech: log-mel energies, strided convolutions, norm, projection to the model's width.

    Args:
        spectrogram: the log-mel energies.
        extractor: convolutions over their frames.
        embed_dim: d.
        gradient_scale: factor of the gradient that reaches convolutions, norm and projection; 0 = they keep their
            initial weights, which learned better in short runs.

    >>> front = LogMelFront(LogMel(num_bands=20), ConvExtractor([(8, 3, 2)] * 2, in_channels=20), embed_dim=16)
    >>> front(Batch(source=torch.randn(2, 16000))).x.shape
    torch.Size([2, 23, 16])
    """

    def __init__(
        self, spectrogram: LogMel, extractor: ConvExtractor, *, embed_dim: int, gradient_scale: float = 1.0
    ) -> None:
        super().__init__()
        width = extractor.spec[-1][0]
        self.spectrogram = spectrogram
        self.extractor = extractor
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed_dim)
        self.gradient_scale = gradient_scale

    def forward(self, batch: Batch) -> Local:
        """Features of waveforms `b s`.

        Raises:
            ValueError: if the source is not `b s` or is too short.
        """
        source, lengths = waveforms(batch), None
        if self.num_frames(source.shape[1]) < 1:
            raise ValueError(f"{source.shape[1]} samples are shorter than one frame; give longer recordings")
        if batch.padding is not None:
            samples = (~batch.padding).sum(1)
            lengths = (samples - self.spectrogram.n_fft).div(self.spectrogram.hop, rounding_mode="floor") + 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_scale > 0):
            frames = self.extractor(self.spectrogram(source, lengths).transpose(1, 2))
            x = scale_gradient(self.proj(self.norm(frames)), self.gradient_scale)
        padding = None if lengths is None else frame_padding(self.extractor.frame_lengths(lengths), x.shape[1])
        return Local(x=x, padding=padding, grid=(x.shape[1],))

    def num_frames(self, samples: int) -> int:
        """Number of frames of a recording with `samples` samples."""
        return self.extractor.num_frames(self.spectrogram.num_frames(samples))


def _standardised(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero mean and unit variance over the valid frames of each row and band of `b t f`."""
    if lengths is None:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return (x - mean) / (variance.sqrt() + _EPS)
    valid = ~frame_padding(lengths, x.shape[1])[..., None]
    count = lengths.clamp(min=1)[:, None, None]
    mean = x.where(valid, 0).sum(1, keepdim=True) / count
    x = (x - mean).where(valid, 0)
    return x / ((x.square().sum(1, keepdim=True) / count).sqrt() + _EPS)
