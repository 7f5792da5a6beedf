"""Attention with linear biases: scores decrease with the distance between positions (Press et al. 2022).

Distances are between original positions, so rows of visible tokens do not need the full table.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v.core.nn.distances import Distance, DistanceBias, Distances
from d2v.core.validators import check, one_of


class Placed(Protocol):
    """Tokens with positions.

    Attributes:
        position: Long `r k`, position of each token; None = all positions in order.
        grid: (t,) or (h, w), layout of the positions.
        num_prefix_tokens: e, number of leading tokens without position.
    """

    @property
    def position(self) -> Tensor | None: ...  # noqa: D102 - described in the class

    @property
    def grid(self) -> tuple[int, ...]: ...  # noqa: D102 - a protocol

    @property
    def num_prefix_tokens(self) -> int: ...  # noqa: D102 - a protocol


class Alibi(nn.Module):
    """Bias -m_h |i - j| s for head h, with s clamped from below at 0 (data2vec 2.0 speech models).

    Args:
        num_heads: h; slopes m_h are 2^(-8 (h+1) / H) for a power of two, interpolated otherwise.
        num_layers: number of layers (context blocks first) with separate scales; 1 = all share one.
        per_head: whether each head has a separate scale.
        scale: initial value of s.
        learned: whether s is trained.
        distance: distance between cells of a grid with two axes.

    Raises:
        ValueError: if `distance` is unknown.

    >>> from types import SimpleNamespace
    >>> bias = Alibi(2)(SimpleNamespace(position=torch.tensor([[0, 2, 3]]), grid=(4,), num_prefix_tokens=0))
    >>> bias(0).table()[0, 0]
    tensor([[-0.0000, -0.1250, -0.1875],
            [-0.1250, -0.0000, -0.0625],
            [-0.1875, -0.0625, -0.0000]], grad_fn=<SelectBackward0>)
    """

    slopes: Tensor

    def __init__(
        self,
        num_heads: int,
        *,
        num_layers: int = 1,
        per_head: bool = True,
        scale: float = 1.0,
        learned: bool = True,
        distance: Distance = "manhattan",
    ) -> None:
        super().__init__()
        check(one_of(Distance), distance=distance)
        self.distance = distance
        self.register_buffer("slopes", torch.tensor(_slopes(num_heads)), persistent=False)
        shape = (num_layers, num_heads if per_head else 1)
        self.scale = nn.Parameter(torch.full(shape, scale), requires_grad=learned)

    def forward(self, tokens: Placed) -> Callable[[int], DistanceBias]:
        """Place the tokens, once for all layers.

        Args:
            tokens: `r (e+k) d` with their positions; the extra tokens are at distance zero from every token.

        Returns:
            Function from a layer to its bias; `table()` of that is the plain tensor `r h (e+k) (e+k)`, r = 1 if all
            positions are in order.
        """
        places = F.pad(self._places(tokens.position, tokens.grid), (tokens.num_prefix_tokens, 0))
        distances = Distances(places=places, kind=self.distance, num_prefix_tokens=tokens.num_prefix_tokens)
        computed: dict[int, DistanceBias] = {}

        def bias(layer: int) -> DistanceBias:
            row = layer if self.scale.shape[0] > 1 else 0
            if row not in computed:
                slopes = self.slopes * self.scale[row].clamp(min=0)
                computed[row] = DistanceBias(distances=distances, slopes=slopes)
            return computed[row]

        return bias

    def _places(self, position: Tensor | None, grid: tuple[int, ...]) -> Tensor:
        if position is None:
            position = torch.arange(math.prod(grid), device=self.slopes.device)[None]
        axes = (position,) if len(grid) == 1 else (position // grid[1], position % grid[1])
        return torch.stack(axes).float()


def _slopes(num_heads: int) -> list[float]:
    power = 2 ** math.floor(math.log2(num_heads))
    first = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    return first if power == num_heads else first + _slopes(2 * power)[0::2][: num_heads - power]
