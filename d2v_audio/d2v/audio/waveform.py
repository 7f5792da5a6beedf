"""Waveforms to frames: the front end of speech models."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v.core.model import Batch, Local
from d2v.core.nn.gradients import scale_gradient
from d2v.core.validators import check, one_of

ConvSpec = tuple[int, int, int]
WAV2VEC_LAYERS: tuple[ConvSpec, ...] = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)  # 20 ms frames at 16 kHz
ExtractorNorm = Literal["layer", "group"]


class WaveformExtractor(nn.Module):
    """Strided convolutions over the raw waveform, each followed by a norm and GELU.

    Args:
        layers: (channels, kernel, stride) of each convolution, without padding.
        norm: "layer" = over channels, after every convolution; "group" = over time, one group for each channel, only
            after the first convolution.
        bias: whether the convolutions have a bias.

    >>> WaveformExtractor([(8, 10, 5), (8, 3, 2)])(torch.zeros(2, 100)).shape
    torch.Size([2, 9, 8])
    """

    def __init__(self, layers: Sequence[ConvSpec], *, norm: ExtractorNorm = "layer", bias: bool = False) -> None:
        super().__init__()
        check(one_of(ExtractorNorm), norm=norm)
        self.spec = tuple((channels, kernel, stride) for channels, kernel, stride in layers)
        inputs = (1, *(channels for channels, _, _ in self.spec))
        self.convs = nn.ModuleList()
        for before, (channels, kernel, stride) in zip(inputs, self.spec, strict=False):
            conv = nn.Conv1d(before, channels, kernel, stride=stride, bias=bias)
            nn.init.kaiming_normal_(conv.weight)
            self.convs.append(conv)
        self.norms = nn.ModuleList()
        if norm == "layer":
            self.norms.extend(nn.LayerNorm(channels) for channels, _, _ in self.spec)
        else:
            self.norms.append(nn.GroupNorm(self.spec[0][0], self.spec[0][0]))

    def forward(self, waveform: Tensor) -> Tensor:
        """Frames `b t c` of waveforms `b s`.

        Raises:
            ValueError: if the waveform is shorter than one frame.
        """
        if self.num_frames(waveform.shape[1]) < 1:
            raise ValueError(f"{waveform.shape[1]} samples are shorter than one frame; give longer recordings")
        x = waveform[:, None]
        for layer, conv in enumerate(self.convs):
            x = conv(x)
            norm = self.norms[layer] if layer < len(self.norms) else None
            if isinstance(norm, nn.LayerNorm):
                x = norm(x.transpose(1, 2)).transpose(1, 2)
            elif norm is not None:
                x = norm(x)
            x = F.gelu(x)
        return x.transpose(1, 2)

    def num_frames(self, samples: int) -> int:
        """Number of frames of a recording with `samples` samples."""
        for _, kernel, stride in self.spec:
            samples = (samples - kernel) // stride + 1 if samples >= kernel else 0
        return samples

    @property
    def stride(self) -> int:
        """Number of samples from the start of a frame to that of the next."""
        return math.prod(stride for _, _, stride in self.spec)

    def frame_padding(self, padding: Tensor, num_frames: int) -> Tensor:
        """Padding of frames, Bool `b t`, from right padding of samples, Bool `b s`."""
        lengths = (~padding).sum(1)
        for _, kernel, stride in self.spec:
            lengths = (lengths - kernel).div(stride, rounding_mode="floor") + 1
        return torch.arange(num_frames, device=padding.device) >= lengths[:, None]


class WaveformFront(nn.Module):
    """Front end for speech: convolutions, norm, projection to the model's width.

    Args:
        extractor: the convolutions.
        embed_dim: d.
        gradient_scale: factor of the gradient that reaches the convolutions; 0 = they are not trained.

    >>> front = WaveformFront(WaveformExtractor([(8, 10, 5), (8, 3, 2)]), embed_dim=16)
    >>> front(Batch(source=torch.zeros(2, 100))).x.shape
    torch.Size([2, 9, 16])
    """

    def __init__(self, extractor: WaveformExtractor, *, embed_dim: int, gradient_scale: float = 1.0) -> None:
        super().__init__()
        width = extractor.spec[-1][0]
        self.extractor = extractor
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed_dim)
        self.gradient_scale = gradient_scale

    @property
    def stride(self) -> int:
        """Number of samples from the start of a frame to that of the next."""
        return self.extractor.stride

    def forward(self, batch: Batch) -> Local:
        """Features of waveforms `b s`.

        Raises:
            ValueError: if the source is not `b s` or is too short.
        """
        if batch.source.dim() != 2:
            raise ValueError(
                f"waveforms must have shape b s, not {tuple(batch.source.shape)}; mix channels down to one"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_scale > 0):
            frames = self.extractor(batch.source)
        x = self.proj(self.norm(scale_gradient(frames, self.gradient_scale)))
        padding = None if batch.padding is None else self.extractor.frame_padding(batch.padding, x.shape[1])
        return Local(x=x, padding=padding, grid=(x.shape[1],))
