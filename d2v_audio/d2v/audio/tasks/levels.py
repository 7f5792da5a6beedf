"""Loudness of waveforms, by which mixing weighs them."""

from typing import Literal

import torch
from torch import Tensor

from d2v.core.validators import check, one_of

Gain = Literal["rms", "a-weighting"]
_WINDOW, _SILENCE = 2048, 1e-8  # samples; -80 dB


def loudness(waveforms: Tensor, *, gain: Gain, sample_rate: int) -> Tensor:
    """Return the level of the loudest window of each waveform in dB, `b`; -80 dB at least.

    Args:
        waveforms: `b s`; windows of 2048 samples that overlap by half, or the whole waveform if it is shorter.
        gain: "rms" = mean square; "a-weighting" = the same of the frequencies as the ear weighs them (IEC 61672).
        sample_rate: in Hz.

    Raises:
        ValueError: if `gain` is unknown.

    >>> tone = torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000))[None]
    >>> levels = [loudness(tone, gain=gain, sample_rate=16000).item() for gain in ("rms", "a-weighting")]
    >>> [round(level, 1) for level in levels]
    [-3.0, -3.0]
    """
    check(one_of(Gain), gain=gain)
    length = min(_WINDOW, waveforms.shape[1])
    windows = waveforms.float().unfold(1, length, max(1, length // 2))
    if gain == "rms":
        power = windows.square().mean(-1)
    else:
        hann = torch.hann_window(length, device=waveforms.device)
        spectrum = torch.fft.rfft(windows * hann).abs().square()
        frequencies = torch.fft.rfftfreq(length, 1 / sample_rate, device=waveforms.device)
        # Parseval: a spectrum has half of the power, and the window takes 3/8 of it on average.
        power = (spectrum * a_weights(frequencies)).sum(-1) * 2 / length / hann.square().sum()
    return 10 * power.amax(1).clamp(min=_SILENCE).log10()


def a_weights(frequencies: Tensor) -> Tensor:
    """Return the A-weighting of powers (not of amplitudes), 1 at 1 kHz; same shape.

    Args:
        frequencies: in Hz.

    >>> a_weights(torch.tensor([100.0, 1000.0])).log10().mul(10).round(decimals=1)
    tensor([-19.1000,   0.0000])
    """
    f = frequencies.double().square()
    low, high = 20.598997**2, 12194.217**2
    response = high * f.square() / ((f + low) * (f + high) * ((f + 107.65265**2) * (f + 737.86223**2)).sqrt())
    return (response * 10 ** (2.0 / 20)).square().to(frequencies.dtype)
