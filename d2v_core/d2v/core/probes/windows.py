"""Features of long sequences in overlapping windows, with memory for one window at a time.

Attention is over the whole input, so features of a window differ a little from those of the whole sequence; the frames
at the ends of a window, which lack context on one side, are not used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from attrs import evolve, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.model import Backbone, Batch, Encodes
from d2v.core.nn.sinks import ResultKind
from d2v.core.precision import FeaturePrecision
from d2v.core.probes.encoding import ALL, Layers, encode_layers
from d2v.core.probes.features import Features, described
from d2v.core.probes.pooling import check_pooling, pool_layer
from d2v.core.validators import check


class Framed(Protocol):
    """Front end that cuts a sequence into frames at a constant stride, without padding at the ends."""

    @property
    def stride(self) -> int:
        """Number of raw samples from the start of a frame to that of the next."""
        ...

    def num_frames(self, samples: int) -> int:
        """Number of frames of a sequence with `samples` raw samples."""
        ...


@frozen(kw_only=True)
class Window:
    """A window of a sequence and the frames that are used from it.

    Args:
        start: first raw sample.
        stop: raw sample after the last one.
        first: first used frame, counted in the window.
        last: frame after the last used one, counted in the window.
    """

    start: int
    stop: int
    first: int
    last: int


def cut_windows(front: Framed, samples: int, *, window: int, margin: int) -> list[Window]:
    """Windows whose used frames together are the frames of the sequence, each once.

    Args:
        front: front end of the encoder.
        samples: number of raw samples of the sequence.
        window: raw samples of a window.
        margin: frames at each end of a window that are not used, except at the ends of the sequence.

    Raises:
        ValueError: if a window has no frames between its margins.

    >>> class Front:
    ...     stride = 10
    ...     def num_frames(self, samples):
    ...         return (samples - 20) // 10 + 1
    >>> for one in cut_windows(Front(), 150, window=80, margin=1):
    ...     print(one.start, one.stop, one.first, one.last)
    0 80 0 6
    50 130 1 6
    100 150 1 4
    """
    used = front.num_frames(window) - 2 * margin
    if used < 1:
        raise ValueError(f"window={window} has {used + 2 * margin} frames, of which {2 * margin} are margins; enlarge it")
    total = front.num_frames(samples)
    found = [Window(start=0, stop=min(window, samples), first=0, last=min(used + margin, total))]
    done = found[0].last
    while done < total:
        start = (done - margin) * front.stride
        stop = min(start + window, samples)
        last = min(margin + used, total - done + margin)
        found.append(Window(start=start, stop=stop, first=margin, last=last))
        done += last - margin
    if found[-1].stop == samples:
        return found
    end = front.num_frames(samples - found[-1].start)
    return [*found[:-1], evolve(found[-1], stop=samples, last=end)]
