"""Masker interface, and helpers that maskers share.

A masker turns (number of samples, grid, source of random numbers) into a `Mask`. It does not depend on models or data.
The helpers choose exact numbers of positions per row by ranking random keys, without a loop over rows.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Protocol

import torch
from einops import repeat
from torch import Tensor

from d2v.core.masks.draw import Source
from d2v.core.masks.mask import Mask
from d2v.core.validators import check, must

_LAST = 1 << 55  # above every key: random integers stay below 2^53, and `adjusted` adds 2^53 to some


class Masker(Protocol):
    """Draws a `Mask`: hidden positions of `num_masks` views of `b` samples.

    The result is on the device of the draw. Only valid positions are hidden. All rows of a call are trimmed to the
    smallest count unless a masker says otherwise. With a `Draw`, a row depends only on (seed, update, id, clone) and
    its own length, except for this trimming.
    """

    def __call__(
        self, b: int, grid: tuple[int, ...], *, num_masks: int = 1, draw: Source, lengths: Tensor | None = None
    ) -> Mask:
        """Draw a mask, `hidden` Bool `(b m) t`.

        Args:
            b: number of samples.
            grid: (t,) or (h, w); positions are counted row by row. `SpanMasker` also takes t.
            num_masks: m, number of views of each sample.
            draw: a `Draw`, or a `torch.Generator`.
            lengths: Long `b`, number of valid positions of each sample, which come first; None = all are valid.
        """
        ...


def valid_positions(b: int, grid: tuple[int, ...], num_masks: int, lengths: Tensor | None, *, axes: int = 0) -> Tensor:
    """Check the arguments of a call and return the number of valid positions of every row, Long `(b m)`.

    The result is on the CPU, where counts are computed in float64 as in the reference.

    Raises:
        ValueError: if an argument is out of range, or the grid does not have `axes` axes (0 = 1 or 2).
    """
    whole = isinstance(grid, Sequence) and all(isinstance(size, Integral) and int(size) >= 1 for size in grid)
    if not whole or len(grid) not in ((axes,) if axes else (1, 2)):
        wanted = {0: "(t,) or (h, w)", 1: "(t,); pass (h * w,) to run over a plane row by row", 2: "(h, w)"}[axes]
        given = tuple(grid) if whole else grid
        raise ValueError(f"grid={given} must hold positive sizes {wanted}")
    check(
        must(lambda number: isinstance(number, Integral) and int(number) >= 1, "an integer >= 1"),
        b=b,
        num_masks=num_masks,
    )
    t = math.prod(grid)
    if lengths is None:
        return torch.full((b * num_masks,), t)
    if not isinstance(lengths, Tensor):
        raise ValueError(f"lengths must be a tensor of {b} integers, one per sample, not a {type(lengths).__name__}")
    if lengths.shape != (b,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths must be {b} integers, one per sample, not {lengths.dtype} {tuple(lengths.shape)}")
    lengths = lengths.cpu().long()
    bad = ((lengths < 1) | (lengths > t)).nonzero()
    if len(bad):
        sample = int(bad[0])
        raise ValueError(f"lengths[{sample}]={int(lengths[sample])} must be from 1 to {t}, the positions of the grid")
    return repeat(lengths, "b -> (b m)", m=num_masks)


def inside(valid: Tensor, t: int, device: torch.device) -> Tensor:
    """Return Bool `r t`, True = valid position."""
    return torch.arange(t, device=device) < valid.to(device)[:, None]


def lowest(keys: Tensor, count: Tensor) -> Tensor:
    """Select exactly `count` (Long `r`) positions per row, those with the smallest keys (Long `r t`), as Bool `r t`."""
    rows, t = keys.shape
    most = int(count.max())
    ragged = bool(count.min() != most)
    index = keys.topk(most, dim=1, largest=False, sorted=ragged).indices
    if ragged:  # surplus positions go to an extra column, which is cut off
        index = index.where(torch.arange(most, device=keys.device) < count[:, None], t)
    chosen = torch.zeros(rows, t + 1, dtype=torch.bool, device=keys.device)
    return chosen.scatter_(1, index, True)[:, :t]


def among(keys: Tensor, allowed: Tensor) -> Tensor:
    """Replace the keys of positions that are not allowed by a key above all others."""
    return keys.where(allowed, _LAST)


def adjusted(chosen: Tensor, allowed: Tensor, keys: Tensor, count: Tensor) -> Tensor:
    """Drop or add random positions until each row has exactly `count` (Long `r`) chosen ones, Bool `r t`.

    One ranking does both: chosen positions in random order, then the other allowed ones in random order.
    """
    return lowest(among(keys + (~chosen).long() * (1 << 53), allowed), count)


def check_visible(count: Tensor, valid: Tensor, num_masks: int, fix: str) -> None:
    """Refuse rows in which all `valid` positions (Long `r`) would be hidden, for hidden counts `count` (Long `r`).

    Raises:
        ValueError: naming the sample, its length and the fix.
    """
    full = (count >= valid.to(count.device)).nonzero()
    if len(full):
        row = int(full[0])
        raise ValueError(
            f"every one of the {int(valid[row])} valid positions of sample {row // num_masks} (mask {row % num_masks}) "
            f"would be hidden; {fix}"
        )
