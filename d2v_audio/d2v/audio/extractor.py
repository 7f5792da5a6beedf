"""Strided convolutions that turn waveforms or spectrograms into frames."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v.core.nn.forms import Trial, TwoForms, trial_of
from d2v.core.nn.gradients import keep_layout
from d2v.core.nn.inference import packed_weights
from d2v.core.nn.kernels import convolve, fits_channels_last
from d2v.core.nn.recompute import recomputed
from d2v.core.validators import check, one_of

ConvSpec = tuple[int, int, int]
WAV2VEC_LAYERS: tuple[ConvSpec, ...] = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)  # 20 ms frames at 16 kHz
ExtractorNorm = Literal["layer", "group"]
_TRIAL_LENGTH = 2400
_BLOCK = 100  # frames


class ConvExtractor(TwoForms):
    """Strided convolutions over time, each followed by a norm and GELU: the wav2vec 2.0 feature extractor.

    Args:
        layers: (channels, kernel, stride) of each convolution, without padding.
        norm: "layer" = over channels, after every convolution; "group" = over time, one group for each channel, only
            after the first convolution.
        bias: whether the convolutions have a bias.
        in_channels: channels of the input: 1 for waveforms, the number of bands for spectrograms.

    >>> import torch
    >>> ConvExtractor([(8, 10, 5), (8, 3, 2)])(torch.zeros(2, 1, 100)).shape
    torch.Size([2, 9, 8])
    """

    other_form: ClassVar[str] = "channels-last-extractor"

    def __init__(
        self, layers: Sequence[ConvSpec], *, norm: ExtractorNorm = "layer", bias: bool = False, in_channels: int = 1
    ) -> None:
        super().__init__()
        check(one_of(ExtractorNorm), norm=norm)
        self.spec = tuple((channels, kernel, stride) for channels, kernel, stride in layers)
        inputs = (in_channels, *(channels for channels, _, _ in self.spec))
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

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Frames `b t c` of an input `b i s` with i channels and s samples, or frames of a spectrogram.

        Args:
            x: the input.
            lengths: numbers of frames of each row that are needed; others may be zero. None = all.

        Raises:
            ValueError: if the input is shorter than one frame.
        """
        frames = self.num_frames(x.shape[2])
        if frames < 1:
            raise ValueError(f"{x.shape[2]} samples are shorter than one frame; give longer recordings")
        x = x.transpose(1, 2)
        if self._goes_in_blocks(x):
            return self._in_blocks(x, frames, lengths)
        return self._whole(x)

    def _whole(self, x: Tensor) -> Tensor:
        for layer in range(len(self.convs)):
            x = self._layer(layer, x)
        return x

    def _goes_in_blocks(self, x: Tensor) -> bool:
        """Whether frames are computed a few at a time: in inference on a CPU, if a norm does not need all of them."""
        alone = all(isinstance(norm, nn.LayerNorm) for norm in self.norms)
        return self.switched and alone and packed_weights() is not None and fits_channels_last(x) and len(x) > 0

    def _in_blocks(self, x: Tensor, frames: int, lengths: Sequence[int] | None) -> Tensor:
        """Compute `b t c` of `b s i`, zero where frames are not needed; the layers of a block stay in the cache."""
        rows = []
        for row, needed in zip(torch.split(x, 1), lengths or [frames] * x.shape[0], strict=True):
            stop = min(max(needed, 1), frames)
            firsts = range(0, stop, _BLOCK)
            blocks = [self._whole(row[:, a * self.stride :][:, : self._samples(min(_BLOCK, stop - a))]) for a in firsts]
            rows.append(F.pad(torch.cat(blocks, 1), (0, 0, 0, frames - stop)))
        return torch.cat(rows)

    def _samples(self, frames: int) -> int:
        return (frames - 1) * self.stride + self.reach

    def offers_other_form(self) -> bool:
        """Whether it is on a CPU."""
        return fits_channels_last(next(self.parameters()))

    def trial(self) -> Trial:
        """Return a row of 2400 positions, and the second layer, which costs most."""
        layer = min(1, len(self.convs) - 1)
        conv = self.convs[layer]
        assert isinstance(conv, nn.Conv1d)
        return trial_of(conv, _TRIAL_LENGTH, rows=1), lambda x: self._layer(layer, x)

    def _layer(self, layer: int, x: Tensor) -> Tensor:
        """Compute `b t c` of `b s i`."""
        conv, norm = self.convs[layer], self.norms[layer] if layer < len(self.norms) else None
        assert isinstance(conv, nn.Conv1d)
        if self.switched and fits_channels_last(x):
            # All layers have this memory format, so nothing is transposed between them.
            return recomputed(F.gelu, recomputed(_normed, norm, convolve(conv, x, channels_last=True)))
        y = recomputed(_normed, norm, conv(x.transpose(1, 2)).transpose(1, 2))
        # As a view of channels-first: see `ConvPositions`.
        return keep_layout(recomputed(F.gelu, y.transpose(1, 2))).transpose(1, 2)

    def num_frames(self, samples: int) -> int:
        """Number of frames of a recording with `samples` samples."""
        for _, kernel, stride in self.spec:
            samples = (samples - kernel) // stride + 1 if samples >= kernel else 0
        return samples

    @property
    def stride(self) -> int:
        """Number of positions of the input from the start of a frame to that of the next."""
        return math.prod(stride for _, _, stride in self.spec)

    @property
    def reach(self) -> int:
        """Number of positions of the input that a frame is computed from."""
        return reach_of(self.spec)

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Numbers of frames, Long `b`, of recordings with these numbers of samples."""
        for _, kernel, stride in self.spec:
            lengths = (lengths - kernel).div(stride, rounding_mode="floor") + 1
        return lengths


def _normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    if norm is None:
        return x
    y: Tensor = norm(x) if isinstance(norm, nn.LayerNorm) else norm(x.transpose(1, 2)).transpose(1, 2)
    return y


def reach_of(layers: Sequence[ConvSpec], frames: int = 1) -> int:
    """Number of positions of the input that this number of frames of these convolutions is computed from.

    >>> reach_of(WAV2VEC_LAYERS)
    400
    """
    reach = frames
    for _, kernel, stride in reversed(layers):
        reach = (reach - 1) * stride + kernel
    return reach
