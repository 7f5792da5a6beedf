"""Sinks: receivers of an encoder's layer results while it runs.

An encoder stores no activations. It passes each wanted layer result to a sink, which averages the results (targets) or
keeps them (features).
"""

from collections.abc import Iterable
from typing import Literal, Protocol

from torch import Tensor

ResultKind = Literal["ffn", "block"]


class LayerSink(Protocol):
    """Receives layer results of a `TransformerEncoder` in order.

    Attributes:
        wants: layers (from 0) whose results the sink receives.
        kind: "ffn" = the feed-forward branch, "block" = the block's output.
        output: whether the encoder's final output is needed too; if not, the layers that only it needs are skipped.
    """

    @property
    def wants(self) -> frozenset[int]: ...  # noqa: D102 - described in the class

    @property
    def kind(self) -> ResultKind: ...  # noqa: D102 - a protocol

    @property
    def output(self) -> bool: ...  # noqa: D102 - a protocol

    def __call__(self, layer: int, result: Tensor, num_prefix_tokens: int) -> None:
        """Receive the result `r (e+k) d` of one layer; its first `num_prefix_tokens` tokens are extra tokens."""
        ...


class LayerFeatures:
    """Sink that keeps layer results, extra tokens included.

    Args:
        layers: layers (from 0) to keep.
        kind: "ffn" = the feed-forward branch, "block" = the block's output.
        output: whether the encoder's final output is needed too.

    >>> sink = LayerFeatures([2], kind="block")
    >>> sorted(sink.wants), sink.results
    ([2], {})
    """

    def __init__(self, layers: Iterable[int], *, kind: ResultKind = "ffn", output: bool = True) -> None:
        self.wants = frozenset(layers)
        self.kind: ResultKind = kind
        self.output = output
        self.results: dict[int, Tensor] = {}

    def __call__(self, layer: int, result: Tensor, num_prefix_tokens: int) -> None:
        """Keep a layer result `r (e+k) d`."""
        self.results[layer] = result
