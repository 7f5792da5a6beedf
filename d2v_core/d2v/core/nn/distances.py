"""Attention bias by distance, in a form from which every kernel makes what it needs.

Distances are the same for all heads and layers, slopes for all rows and positions, and padding for all heads. The full
bias of every row, head and pair of tokens is larger than the three by about the number of heads. These are dataclasses,
because torch.compile cannot make attrs values inside a block.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

Distance = Literal["manhattan", "euclidean"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Distances:
    """Places of tokens on a line or a grid. Their distances are computed once, for all heads and layers.

    Args:
        places: float `a r k`, coordinates on a axes; r = 1 if they are the same in all rows.
        kind: distance between cells of a grid with two axes.
        num_prefix_tokens: e, number of leading tokens without place, at distance zero from every token.

    >>> Distances(places=torch.tensor([[[0.0, 2.0, 3.0]]])).table()
    tensor([[[0., 2., 3.],
             [2., 0., 1.],
             [3., 1., 0.]]])
    """

    places: Tensor
    kind: Distance = "manhattan"
    num_prefix_tokens: int = 0
    _known: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def table(self) -> Tensor:
        """Return the distances `r k k`."""
        # A compiled block computes its own, which the compiler fuses with their use.
        if _compiles_a_block():
            return self._computed()
        if not self._known:
            self._known.append(self._computed())
        return self._known[0]

    def _computed(self) -> Tensor:
        table = distance([axis[:, :, None] for axis in self.places], [axis[:, None] for axis in self.places], self.kind)
        if self.num_prefix_tokens:
            table[:, : self.num_prefix_tokens] = 0
            table[:, :, : self.num_prefix_tokens] = 0
        return table


@dataclass(frozen=True, eq=False, kw_only=True)
class DistanceBias:
    """Attention bias -slope x distance, and -inf at padded keys; `Alibi` makes it for each layer.

    Args:
        distances: distances between the tokens.
        slopes: float `h`, not negative.
        padding: Bool `r k`, True = padding, or None.

    >>> bias = DistanceBias(distances=Distances(places=torch.tensor([[[0.0, 2.0]]])), slopes=torch.tensor([0.5]))
    >>> bias.shape, bias.table()[0, 0]
    ((1, 1, 2, 2), tensor([[-0., -1.],
                           [-1., -0.]]))
    """

    distances: Distances
    slopes: Tensor
    padding: Tensor | None = None
    _known: dict[tuple[torch.dtype, bool], Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(r, h, k, k), the shape of `table`; r = 1 if all rows have the same bias."""
        _, rows, length = self.distances.places.shape
        return rows if self.padding is None else self.padding.shape[0], self.slopes.shape[0], length, length

    def table(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the bias as a plain tensor `r h k k`, computed once for each precision."""
        if _compiles_a_block():
            return self._computed().to(dtype)
        key = dtype, torch.is_grad_enabled()
        if key not in self._known:
            self._known[key] = self._computed().to(dtype)
        return self._known[key]

    def _computed(self) -> Tensor:
        bias = self.distances.table()[:, None] * -self.slopes[:, None, None]
        if self.padding is None:
            return bias
        padded = torch.zeros_like(self.padding, dtype=bias.dtype).masked_fill_(self.padding, -torch.inf)[:, None, None]
        # Rows without distances of their own have to be repeated; otherwise nothing is copied.
        # Not `len`, which makes a fixed number of the rows in an exported graph.
        return bias.add_(padded) if bias.shape[0] == padded.shape[0] else bias + padded


def _compiles_a_block() -> bool:
    # An exported graph has all blocks, so that they can share one table.
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def distance(first: Sequence[Tensor], second: Sequence[Tensor], kind: Distance) -> Tensor:
    """Return the distances between places, given as one tensor for each axis.

    >>> distance([torch.tensor(1.0), torch.tensor(5.0)], [torch.tensor(4.0), torch.tensor(1.0)], "euclidean")
    tensor(5.)
    """
    apart = [(one - other).abs() for one, other in zip(first, second, strict=True)]
    if kind == "manhattan":
        return reduce(operator.add, apart)
    return reduce(operator.add, [axis.square() for axis in apart]).sqrt()
