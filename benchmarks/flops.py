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
    extra = adapter.extra_tokens if isinstance(adapter, ImageAdapterConfig) else 0
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
    front, positions = batch * _front(case), _positions(case, places)
    # In the published models, only the teacher of images has a front end; the others take the student's features.
    teacher_has_front = isinstance(adapter, ImageAdapterConfig)
    return Flops(
        front=front,
        positions=rows * positions,
        student=rows * blocks(extra + mask.visible.shape[1]),
        decoder=convolutions + projection,
        teacher=batch * (positions + blocks(extra + places)) + front * teacher_has_front,
    )


def _front(case: Case) -> float:
    """FLOPs of the front end for a sample."""
    adapter, width = case.config.student.adapters[case.modality], case.config.student.encoder.block.embed_dim
    if isinstance(adapter, ImageAdapterConfig):
        return 2.0 * math.prod(case.grid) * width * adapter.channels * math.prod(adapter.patch_size)
    if not isinstance(adapter, WaveformAdapterConfig):
        return 0.0
    total, frames, channels = 0.0, int(case.seconds * 16_000), 1
    for out, kernel, stride in adapter.conv_layers:
        frames = (frames - kernel) // stride + 1
        total += 2 * frames * out * channels * kernel
        channels = out
    return total + 2 * frames * channels * width


def _positions(case: Case, places: int) -> float:
    """FLOPs of the convolutional positions of a row."""
    adapter, width = case.config.student.adapters[case.modality], case.config.student.encoder.block.embed_dim
    if not isinstance(adapter, WaveformAdapterConfig):
        return 0.0
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
