"""What reads the layers of an encoder while it runs.

An encoder keeps no list of activations: it hands each wanted layer result to a sink, which averages it (targets),
keeps it (features) or whatever else its owner needs.
"""

from collections.abc import Iterable
from typing import Literal, Protocol

from torch import Tensor

ResultKind = Literal["ffn", "block"]


class LayerSink(Protocol):
    """Receives layer results of a `TransformerEncoder` in order.

    Attributes:
        wants: layers (from 0) to hand over.
        kind: "ffn" = the feed-forward branch, "block" = the block's output.
        output: whether the encoder's final output is wanted as well; if not, what only it needs is skipped.
    """

    @property
    def wants(self) -> frozenset[int]: ...  # noqa: D102 - described in the class

    @property
    def kind(self) -> ResultKind: ...  # noqa: D102

    @property
    def output(self) -> bool: ...  # noqa: D102

    def __call__(self, layer: int, result: Tensor, num_prefix_tokens: int) -> None:
        """Take the result `r (e+k) d` of one layer, whose first `num_prefix_tokens` tokens are extra ones."""
        ...


class LayerFeatures:
    """Sink that keeps layer results, extra tokens included.

    Args:
        layers: layers (from 0) to keep.
        kind: "ffn" = the feed-forward branch, "block" = the block's output.
        output: whether the encoder's final output is wanted as well.

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
