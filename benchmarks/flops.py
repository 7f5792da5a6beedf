"""FLOPs of an update by formula, and the speed that this machine's matrix products reach.

A multiplication and an addition are two FLOPs; norms, activations and softmax are left out. The backward pass of a
layer costs twice its forward pass. torch's counter is not used: it counts the backward pass of grouped convolutions as
that of one group.
"""

import math
import time
from collections.abc import Callable

import torch
from attrs import frozen
from formulations import Case

from d2v.audio import WaveformAdapterConfig
from d2v.core.masks import Mask
from d2v.core.model import ConvDecoderConfig
from d2v.core.nn.forms import take_forms
from d2v.core.nn.linear import Linear
from d2v.core.precision import Precision, autocast
from d2v.text import TextAdapterConfig
from d2v.vision import ImageAdapterConfig

_ROWS, _WIDTH = 1024, 768


@frozen(kw_only=True)
class Flops:
    """FLOPs of the forward pass of the parts of an update.

    Args:
        front: patches or frames of b samples.
        positions: convolutional positions of b m rows.
        student: blocks over the visible tokens of b m rows.
        decoder: decoder of b m rows; its projection at hidden positions only.
        teacher: what the teacher computes of b samples, which includes no front if it has none.
    """

    front: float
    positions: float
    student: float
    decoder: float
    teacher: float

    @property
    def update(self) -> float:
        """FLOPs of an update: forward and backward pass of the student, forward pass of the teacher."""
        return 3 * (self.front + self.positions + self.student + self.decoder) + self.teacher


def flops_of(case: Case, batch: int, mask: Mask) -> Flops:
    """Return the FLOPs of an update with a mask `(b m) t`."""
    adapter, encoder = case.config.student.adapters[case.modality], case.config.student.encoder
    decoder, width = case.config.predictors[case.modality], encoder.block.embed_dim
    assert isinstance(decoder, ConvDecoderConfig)
    (rows, places), hidden = mask.hidden.shape, int(mask.hidden.sum())
    before = _before_blocks(case, places)
    depth = encoder.depth + (0 if adapter.context is None else adapter.context.depth)

    def blocks(tokens: int) -> float:
        linear = 2 * tokens * width * width * (4 + 2 * encoder.block.mlp_ratio)
        return depth * (linear + 4 * tokens**2 * width)

    inputs = [width, *[decoder.decoder_dim] * (decoder.num_layers - 1)]
    kernel = decoder.kernel_size ** len(case.grid)
    convolutions = sum(2 * rows * places * decoder.decoder_dim * one // decoder.groups * kernel for one in inputs)
    widths = [
        decoder.decoder_dim,
        *[int(decoder.decoder_dim * decoder.projection_ratio)] * (decoder.projection_layers - 1),
    ]
    projection = sum(2 * hidden * a * b for a, b in zip(widths, [*widths[1:], width], strict=True))
    return Flops(
        front=batch * before.front,
        positions=rows * before.positions,
        student=rows * blocks(before.extra + mask.visible.shape[1]),
        decoder=convolutions + projection,
        teacher=batch * (before.teacher_front + before.positions + blocks(before.extra + places)),
    )


@frozen(kw_only=True)
class _BeforeBlocks:
    """What an adapter computes before the blocks: FLOPs of a sample, and of the positions of a row; extra tokens.

    In the published models, only the teacher of images has a front end; the others take the student's features.
    """

    front: float = 0.0
    teacher_front: float = 0.0
    positions: float = 0.0
    extra: int = 0


def _before_blocks(case: Case, places: int) -> _BeforeBlocks:
    adapter, width = case.config.student.adapters[case.modality], case.config.student.encoder.block.embed_dim
    match adapter:
        case ImageAdapterConfig():
            patches = 2.0 * math.prod(case.grid) * width * adapter.channels * math.prod(adapter.patch_size)
            return _BeforeBlocks(front=patches, teacher_front=patches, extra=adapter.extra_tokens)
        case WaveformAdapterConfig():
            frames = _frames(adapter, int(case.seconds * 16_000), width)
            return _BeforeBlocks(front=frames, positions=_convolutional_positions(adapter, places, width))
        case TextAdapterConfig():  # looks its tokens and positions up
            return _BeforeBlocks()
    raise TypeError(f"there is no formula for {type(adapter).__name__}")


def _frames(adapter: WaveformAdapterConfig, samples: int, width: int) -> float:
    """FLOPs of the convolutions over a waveform, and of their projection to the model's width."""
    total, frames, channels = 0.0, samples, 1
    for out, kernel, stride in adapter.conv_layers:
        frames = (frames - kernel) // stride + 1
        total += 2 * frames * out * channels * kernel
        channels = out
    return total + 2 * frames * channels * width


def _convolutional_positions(adapter: WaveformAdapterConfig, places: int, width: int) -> float:
    kernel = max(3, adapter.positions_width // adapter.positions_depth)
    return 2.0 * adapter.positions_depth * places * width * width // adapter.positions_groups * kernel


def peak_of(precision: Precision, kernels: tuple[str, ...], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the FLOP/s of a linear layer of the base size on 1,024 rows, with the kernels in use: best of eight."""
    layer, x, best = Linear(_WIDTH, 4 * _WIDTH), torch.randn(_ROWS, _WIDTH), math.inf
    with torch.no_grad(), autocast(precision, torch.device("cpu")):
        take_forms(layer, [name for name in kernels if name == layer.other_form])
        for _ in range(8):
            start = clock()
            layer(x)
            best = min(best, clock() - start)
    return 2 * _ROWS * _WIDTH * 4 * _WIDTH / best
