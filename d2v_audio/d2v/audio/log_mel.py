"""Log-mel spectrograms to frames: a front end that learns on a CPU, where raw waveforms take too long."""

import torch
import torch.nn.functional as F
from attrs.validators import ge
from einops import rearrange
from torch import Tensor, nn

from d2v.audio.extractor import ConvExtractor
from d2v.audio.waveform import frame_padding, waveforms
from d2v.core.model import Batch, Layout, Local
from d2v.core.nn.gradients import scale_gradient
from d2v.core.nn.linear import Linear
from d2v.core.validators import check, positive

_FLOOR = 1e-6  # added to the energies before the logarithm
_LEAST_FFT = 512
_EPS = 1e-5  # added to the standard deviations, for bands of silence


class LogMel(nn.Module):
    """Logarithmic energies in bands of the mel scale, standardised in each band over the recording.

    Every window is inside the recording, so padded samples never reach a valid frame.

    Args:
        sample_rate: of the recordings, in Hz.
        num_bands: number of bands.
        window: length of the Hann window, in seconds.
        hop: time from one window to the next, in seconds.
        min_frequency: lower edge of the first band, in Hz; the last band ends at half the sample rate.

    Raises:
        ValueError: if a number is out of its range.

    >>> LogMel(num_bands=20)(torch.randn(2, 16000)).shape
    torch.Size([2, 98, 20])
    """

    taper: Tensor
    bands: Tensor

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        num_bands: int = 40,
        window: float = 0.025,
        hop: float = 0.01,
        min_frequency: float = 40.0,
    ) -> None:
        super().__init__()
        check(ge(1), sample_rate=sample_rate, num_bands=num_bands)
        self.sample_rate = sample_rate
        check(positive, window=window, hop=hop)
        self.window, self.hop = round(window * sample_rate), round(hop * sample_rate)
        if min(self.window, self.hop) < 1:
            raise ValueError(f"window={window} and hop={hop} must be at least one sample at sample_rate={sample_rate}")
        if not 0 <= min_frequency < sample_rate / 2:
            raise ValueError(f"min_frequency={min_frequency} must be from 0 to half of sample_rate={sample_rate}")
        from torchaudio.functional import melscale_fbanks

        # A window shorter than the transform is padded with zeros, which gives narrow bands their own bins.
        self.n_fft = max(_LEAST_FFT, 1 << (self.window - 1).bit_length())
        bands = melscale_fbanks(self.n_fft // 2 + 1, min_frequency, sample_rate / 2, num_bands, sample_rate)
        # They follow from the arguments, so they are not stored with the weights.
        self.register_buffer("taper", torch.hann_window(self.window), persistent=False)
        self.register_buffer("bands", bands, persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Standardised log-mel energies `b t f` of waveforms `b s`, in float32.

        Args:
            waveform: `b s`, with at least one window.
            lengths: valid frames of each row, Long `b`; None = all. Other frames are 0.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            left = (self.n_fft - self.window) // 2
            spectrum = torch.stft(
                F.pad(waveform.float(), (left, self.n_fft - self.window - left)),
                self.n_fft,
                hop_length=self.hop,
                win_length=self.window,
                window=self.taper,
                center=False,
                return_complex=True,
            )
            energies = spectrum.abs().square().transpose(1, 2) @ self.bands
            return _standardised((energies + _FLOOR).log(), lengths)

    def num_frames(self, samples: int) -> int:
        """Number of frames of a recording with `samples` samples."""
        return max(samples - self.window, -self.hop) // self.hop + 1

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Numbers of frames, Long `b`, of recordings with these numbers of samples."""
        return (lengths - self.window).div(self.hop, rounding_mode="floor") + 1


class LogMelFront(nn.Module):
    """Front end for speech: log-mel energies, strided convolutions, norm, projection to the model's width.

    A recording of at least one window that is too short for a frame is padded with zeros to one frame.

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
        self.proj = Linear(width, embed_dim)
        self.gradient_scale = gradient_scale

    def forward(self, batch: Batch) -> Local:
        """Features of waveforms `b s`.

        Raises:
            ValueError: if the source is not `b s` or is shorter than a window.
        """
        source = self._checked(batch)
        source, lengths = _at_least(self.extractor.reach, self.spectrogram, source, batch.padding)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_scale > 0):
            frames = self.extractor(self.spectrogram(source, lengths).transpose(1, 2))
            x = scale_gradient(self.proj(self.norm(frames)), self.gradient_scale)
        return Local(x=x, padding=self._padding(lengths, x.shape[1]), grid=(x.shape[1],))

    def layout(self, batch: Batch) -> Layout:
        """Return the frames of waveforms `b s`, and their padding.

        Raises:
            ValueError: if the source is not `b s` or is shorter than a window.
        """
        t = self.num_frames(self._checked(batch).shape[1])
        lengths = None if batch.padding is None else _windows(self.extractor.reach, self.spectrogram, batch.padding)
        return Layout(grid=(t,), padding=self._padding(lengths, t))

    def _checked(self, batch: Batch) -> Tensor:
        source = waveforms(batch)
        if self.num_frames(source.shape[1]) < 1:
            raise ValueError(f"{source.shape[1]} samples are shorter than one window; give longer recordings")
        return source

    def _padding(self, lengths: Tensor | None, t: int) -> Tensor | None:
        return None if lengths is None else frame_padding(self.extractor.frame_lengths(lengths), t)

    def num_frames(self, samples: int) -> int:
        """Number of frames of a recording with `samples` samples, at least 1 from the first window on."""
        windows = self.spectrogram.num_frames(samples)
        return self.extractor.num_frames(max(windows, self.extractor.reach)) if windows else 0

    @property
    def stride(self) -> int:
        """Number of samples from the start of a frame to that of the next."""
        return self.spectrogram.hop * self.extractor.stride

    @property
    def sample_rate(self) -> int:
        """Rate of the recordings, in Hz."""
        return self.spectrogram.sample_rate


def stacked_energies(batch: Batch, sample_rate: int, *, stack: int = 4) -> Local:
    """Log-mel energies of each `stack` windows side by side, `b t (stack f)`: what features of speech must exceed.

    Recordings of fewer windows are padded with zeros.

    Args:
        batch: waveforms `b s`.
        sample_rate: of the waveforms, in Hz.
        stack: windows for each frame; 4 make frames of 40 ms.
    """
    spectrogram = LogMel(sample_rate=sample_rate).to(batch.source.device)
    source, lengths = _at_least(stack, spectrogram, waveforms(batch), batch.padding)
    energies = spectrogram(source, lengths)
    t = energies.shape[1] // stack
    x = rearrange(energies[:, : t * stack], "b (t s) f -> b t (s f)", s=stack)
    padding = None if lengths is None else frame_padding(lengths // stack, t)
    return Local(x=x, padding=padding, grid=(t,))


def _at_least(
    windows: int, spectrogram: LogMel, source: Tensor, padding: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Waveforms `b s`, padded to this number of windows if they are shorter, and the windows of each, Long `b`."""
    missing = spectrogram.window + (windows - 1) * spectrogram.hop - source.shape[1]
    if missing > 0:
        source = F.pad(source, (0, missing))
        padding = None if padding is None else F.pad(padding, (0, missing), value=True)
    if padding is None:
        return source, None
    # Short rows see padding, so it must be what they are padded with alone.
    source = source.masked_fill(padding, 0.0)
    return source, _windows(windows, spectrogram, padding)


def _windows(fewest: int, spectrogram: LogMel, padding: Tensor) -> Tensor:
    """Number of windows of each recording, Long `b`, but at least `fewest`."""
    return spectrogram.frame_lengths((~padding).sum(1)).clamp(min=fewest)


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
