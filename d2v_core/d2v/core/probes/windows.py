"""Features of long sequences in overlapping windows, with memory for one window at a time.

Attention is over the whole input, so features of a window differ a little from those of the whole sequence; the frames
at the ends of a window, which lack context on one side, are not used.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from attrs import evolve, frozen

from d2v.core.model import Backbone, Batch
from d2v.core.nn.sinks import ResultKind
from d2v.core.precision import FeaturePrecision
from d2v.core.probes.encoding import ALL, Layers, encode_layers
from d2v.core.probes.features import Features, described
from d2v.core.probes.pooling import check_pooling, pool_layer


@runtime_checkable
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
        raise ValueError(
            f"window={window} has {used + 2 * margin} frames, of which {2 * margin} are margins; enlarge it"
        )
    total = front.num_frames(samples)
    found = [Window(start=0, stop=min(window, samples), first=0, last=min(used + margin, total))]
    done = found[0].last
    while done < total:
        start = (done - margin) * front.stride
        stop = min(start + window, samples)
        last = min(margin + used, total - done + margin)
        found.append(Window(start=start, stop=stop, first=margin, last=last))
        done += last - margin
    return found


def encode_windows(
    encoder: Backbone,
    batches: Iterable[Batch],
    *,
    window: int,
    pooling: str = "mean",
    layers: Mapping[str, Layers] = ALL,
    result: ResultKind = "block",
    precision: FeaturePrecision = "fp32",
) -> Iterator[Features]:
    """Features sample by sample, each read in windows; otherwise as `encode_layers`.

    The margins are at least the reach of the convolutional positions, and an eighth of the window.

    Args:
        encoder: a backbone whose front end is `Framed`.
        batches: of any size, right-padded.
        window: raw samples of a window; shorter samples are encoded as a whole.
        pooling: see `pool_layer`; of all frames together. The class token has no place in windows.
        layers: name to choice of layers.
        result: of a layer: "block" = its output; "ffn" = its feed-forward branch.
        precision: of the encoder.

    Returns:
        An iterator over the features of each sample.

    Raises:
        ValueError: if the front end has no constant stride, a window is too short, or as in `encode_layers`.
    """
    check_pooling(pooling)
    if pooling == "class-token":
        raise ValueError("pooling='class-token' cannot be read in windows; use mean, grid or tokens")
    first = 0
    for batch in batches:
        front = encoder.adapter(batch.modality).front
        if not isinstance(front, Framed):
            raise ValueError(
                f"a {type(front).__name__} has no constant stride, so its input cannot be cut into windows"
            )
        margin = _margin(encoder, front, batch.modality, window)
        named = described(batch, first)
        lengths = [batch.source.shape[1]] * batch.size
        if batch.padding is not None:
            lengths = (~batch.padding).sum(1).tolist()
        for row, length in enumerate(lengths):
            parts = []
            for one in cut_windows(front, length, window=window, margin=margin):
                piece = Batch(source=batch.source[row : row + 1, one.start : one.stop], modality=batch.modality)
                (found,) = encode_layers(
                    encoder, [piece], poolings=["tokens"], layers=layers, result=result, precision=precision
                )
                parts.append({name: read["tokens"][:, one.first : one.last] for name, read in found.values.items()})
            whole = {name: torch.cat([part[name] for part in parts], 1) for name in layers}
            values = {
                name: {pooling: pool_layer(x, pooling, num_prefix_tokens=0, grid=x.shape[1:2])}
                for name, x in whole.items()
            }
            grid = tuple(next(iter(whole.values())).shape[1:2]) if pooling == "tokens" else None
            labels = None if named.labels is None else named.labels[row : row + 1]
            yield evolve(named, values=values, ids=named.ids[row : row + 1], labels=labels, grid=grid)
        first += batch.size


def _margin(encoder: Backbone, front: Framed, modality: str | None, window: int) -> int:
    reach = getattr(encoder.adapter(modality).positions, "reach", 0)
    return max(int(reach), front.num_frames(window) // 8)
