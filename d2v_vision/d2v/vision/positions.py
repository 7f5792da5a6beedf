"""Positions of patches: fixed or learned embeddings, and relative attention bias."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.nn.alibi import Placed

BiasTables = Literal["shared", "layer", "both"]


class SinCosPositions(nn.Module):
    """Fixed sine-cosine positions of column and row.

    With w_i = 10000^(-4i/d) and f(p) = [sin(p w), cos(p w)], the patch in row r and column c gets [f(c), f(r)]: the
    column comes first.

    Args:
        embed_dim: d, a multiple of 4.
        grid: (h, w) in patches.

    Raises:
        ValueError: if d is not a multiple of 4.

    >>> SinCosPositions(8, (2, 3))(torch.zeros(1, 6, 8), None).shape
    torch.Size([1, 6, 8])
    """

    positions: Tensor

    def __init__(self, embed_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if embed_dim % 4:
            raise ValueError(f"sine-cosine positions need a width that is a multiple of 4, not {embed_dim}")
        self.register_buffer("positions", _sines_and_cosines(embed_dim, grid))

    def forward(self, x: Tensor, mask: Mask | None) -> Tensor:
        """Positions `1 t d`."""
        del x, mask
        return self.positions

    def fit(self, grid: tuple[int, int], *, before: tuple[int, int]) -> None:
        """Compute the positions of another grid, (h, w) in patches; those of the grid before are not needed."""
        del before
        self.positions = _sines_and_cosines(self.positions.shape[-1], grid).to(self.positions)


def _sines_and_cosines(embed_dim: int, grid: tuple[int, int]) -> Tensor:
    frequencies = 10000 ** -(torch.arange(embed_dim // 4, dtype=torch.float64) / (embed_dim // 4))
    row, column = (axis.flatten().double() for axis in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    angles = [torch.outer(axis, frequencies) for axis in (column, row)]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return table[None].float()


class LearnedPositions(nn.Module):
    """A learned vector for each patch.

    Args:
        embed_dim: d.
        num: t, number of patches.

    >>> LearnedPositions(8, 6)(torch.zeros(1, 6, 8), None).shape
    torch.Size([1, 6, 8])
    """

    def __init__(self, embed_dim: int, num: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, num, embed_dim))
        nn.init.trunc_normal_(self.positions, std=0.02, a=-0.02, b=0.02)

    def forward(self, x: Tensor, mask: Mask | None) -> Tensor:
        """Positions `1 t d`."""
        del x, mask
        return self.positions

    def fit(self, grid: tuple[int, int], *, before: tuple[int, int]) -> None:
        """Interpolate the positions for another grid, bicubically.

        Args:
            grid: (h, w) in patches.
            before: (h, w) of the current positions.
        """
        self.positions = nn.Parameter(_resampled(self.positions[0], before, grid, corners=False)[None])


def _resampled(table: Tensor, before: tuple[int, int], after: tuple[int, int], *, corners: bool) -> Tensor:
    """Vectors `(h w) d` of a grid, interpolated to another grid.

    Args:
        table: of the grid before.
        before: its (h, w).
        after: (h, w) of the result.
        corners: whether the outermost vectors stay the outermost ones; else the cells of both grids cover one area.
    """
    image = rearrange(table.detach(), "(h w) d -> 1 d h w", h=before[0], w=before[1])
    image = F.interpolate(image.float(), after, mode="bicubic", align_corners=corners)
    return rearrange(image, "1 d h w -> (h w) d").to(table)


class RelativeBias(nn.Module):
    """Attention bias from the offset between two patches, with separate rows for the class token.

    A table has (2h-1)(2w-1) + 3 rows: one for each offset, then class to patch, patch to class, class to class.

    Args:
        grid: (h, w) in patches.
        num_heads: h.
        num_layers: number of layers with their own table; 0 = none.
        shared: whether there is a table that all layers share; if there are both kinds, their values are added.

    >>> from types import SimpleNamespace
    >>> bias = RelativeBias((2, 3), 4)(SimpleNamespace(position=None, grid=(2, 3), num_prefix_tokens=1))
    >>> bias(0).shape
    torch.Size([1, 4, 7, 7])
    """

    def __init__(self, grid: tuple[int, int], num_heads: int, *, num_layers: int = 0, shared: bool = True) -> None:
        super().__init__()
        self.grid = grid
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3
        self.shared = nn.Parameter(torch.zeros(rows, num_heads)) if shared else None
        self.layers = nn.ParameterList(nn.Parameter(torch.zeros(rows, num_heads)) for _ in range(num_layers))

    def forward(self, tokens: Placed) -> Callable[[int], Tensor]:
        """Compute the row indices once for all layers.

        Returns:
            A function from a layer to its bias `r h (e+k) (e+k)`; r = 1 if all positions are in order.
        """
        index = self._index(tokens)
        shared = None if self.shared is None else self._look_up(self.shared, index)

        def bias(layer: int) -> Tensor:
            if not self.layers:
                assert shared is not None
                return shared
            own = self._look_up(self.layers[layer], index)
            return own if shared is None else own + shared

        return bias

    def fit(self, grid: tuple[int, int], *, before: tuple[int, int]) -> None:
        """Interpolate the tables for another grid, bicubically; the largest offsets stay the largest, and 0 stays 0.

        The BEiT-based repository fine-tunes with a spline on unevenly spaced offsets instead, so its results at another
        size differ slightly.

        Args:
            grid: (h, w) in patches.
            before: the current grid.
        """
        old, new = ((2 * height - 1, 2 * width - 1) for height, width in (before, grid))

        def fitted(table: nn.Parameter) -> nn.Parameter:
            offsets, others = table.detach()[:-3], table.detach()[-3:]
            return nn.Parameter(torch.cat([_resampled(offsets, old, new, corners=True), others]))

        self.grid = grid
        if self.shared is not None:
            self.shared = fitted(self.shared)
        self.layers = nn.ParameterList(fitted(table) for table in self.layers)

    @staticmethod
    def _look_up(table: Tensor, index: Tensor) -> Tensor:
        bias = F.embedding(index, table).movedim(-1, 1)
        # Kernels read a bias of all rows many times, and take twice as long if the heads are its innermost axis.
        return bias.contiguous() if index.shape[0] == 1 else bias

    def _index(self, tokens: Placed) -> Tensor:
        height, width = self.grid
        table = self.shared if self.shared is not None else self.layers[0]
        if tuple(tokens.grid) != self.grid:
            raise ValueError(
                f"a relative bias for {self.grid} patches does not fit {tuple(tokens.grid)}; resample it first"
            )
        position = tokens.position
        if position is None:
            position = torch.arange(height * width, device=table.device)[None]
        down, right = position // width, position % width
        offset = (down[:, :, None] - down[:, None] + height - 1) * (2 * width - 1)
        index = offset + right[:, :, None] - right[:, None] + width - 1
        extra, last = tokens.num_prefix_tokens, table.shape[0] - 1
        index = F.pad(index, (extra, 0, extra, 0), value=last)
        index[:, :extra, extra:] = last - 2
        index[:, extra:, :extra] = last - 1
        return index
