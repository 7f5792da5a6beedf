"""The order of an epoch as a keyed bijection: any place of it is computed, none is stored.

A Feistel network over a grid of rows x columns >= n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"):
a place is (row, column), and in turn the column is moved on by a hash of the row, the row by a hash of the column. Each
round can be undone, so the whole is a bijection of the grid. Where it leads beyond n it is applied again, until it does
not (cycle walking); the grid has fewer than sqrt(n) places too many, so that is rare.
"""

import math
from typing import overload

import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from d2v.core.data.draws import Purpose
from d2v.core.masks import Draw
from d2v.core.masks.draw import splitmix64
from d2v.core.validators import check

_ROUNDS = 12  # with 8, the orders of 5 or 6 samples are not equally frequent yet
_LARGEST = 1 << 52  # up to where a square root in float64 is exact enough


class KeyedPermutation:
    """A permutation of the numbers 0 to n-1 by (seed, epoch), O(1) in memory and in time for each place.

    Args:
        n: numbers.
        seed: of the run.
        epoch: each has an order of its own.
        purpose: keeps permutations for different ends apart.
        stream: another one for the same end, say the number of a part.

    Raises:
        ValueError: if `n` is not from 0 to 2^52.
        IndexError: in use, if a place is not from 0 to n-1.

    >>> order = KeyedPermutation(10**10, seed=0, epoch=3)
    >>> order[torch.tensor([0, 9_999_999_999])].tolist() == [order[0], order[9_999_999_999]]
    True
    >>> sorted(KeyedPermutation(5, seed=0, epoch=0))
    [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, *, seed: int, epoch: int, purpose: int = Purpose.ORDER, stream: int = 0) -> None:
        check(and_(ge(0), le(_LARGEST)), n=n)
        self.n = n
        self._keys = _keys(torch.tensor([stream]), seed=seed, epoch=epoch, purpose=purpose)
        self._rows = math.isqrt(max(n - 1, 0)) + 1

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: Tensor) -> Tensor: ...
    def __getitem__(self, place: int | Tensor) -> int | Tensor:
        """What stands at a place, or at each of the places, Long of any shape."""
        if not isinstance(place, Tensor):
            return int(self[torch.tensor([place])])
        if place.numel() and not (int(place.min()) >= 0 and int(place.max()) < self.n):
            raise IndexError(f"places must be from 0 to {self.n - 1}, not {int(place.min())} to {int(place.max())}")
        sizes = torch.tensor([self.n, self._rows, -(-self.n // self._rows)])[:, None].expand(3, place.numel())
        return _walked(place.flatten(), sizes, self._keys.expand(-1, place.numel())).view(place.shape)


def permuted_in_groups(places: Tensor, sizes: Tensor, groups: Tensor, *, seed: int, epoch: int) -> Tensor:
    """The same for places of many small ranges at once, each with a permutation of its own.

    Args:
        places: Long `k`, from 0 to the size of its group - 1.
        sizes: Long `k`, n of the group that a place lies in.
        groups: Long `k`, the number of that group: `KeyedPermutation(n, ..., stream=group)[place]`.
        seed: of the run.
        epoch: each has an order of its own.

    >>> places, sizes, groups = torch.tensor([1, 0, 2]), torch.tensor([2, 3, 3]), torch.tensor([7, 8, 8])
    >>> found = permuted_in_groups(places, sizes, groups, seed=0, epoch=0).tolist()
    >>> order = KeyedPermutation(3, seed=0, epoch=0, stream=8)
    >>> found[1:] == [order[0], order[2]]
    True
    """
    distinct, own = torch.unique(groups, return_inverse=True)
    keys = _keys(distinct, seed=seed, epoch=epoch, purpose=Purpose.ORDER)[:, own]
    rows = (sizes - 1).double().sqrt().long() + 1
    return _walked(places, torch.stack([sizes, rows, -(-sizes // rows)]), keys)


def _keys(streams: Tensor, *, seed: int, epoch: int, purpose: int) -> Tensor:
    return Draw(seed=seed, update=epoch, ids=streams, purpose=purpose).bits(1, _ROUNDS, stream=0).T


def _walked(places: Tensor, sizes: Tensor, keys: Tensor) -> Tensor:
    found = _once(places, sizes, keys)
    outside = (found >= sizes[0]).nonzero()[:, 0]
    while len(outside):
        found[outside] = _once(found[outside], sizes[:, outside], keys[:, outside])
        outside = outside[found[outside] >= sizes[0, outside]]
    return found


def _once(places: Tensor, sizes: Tensor, keys: Tensor) -> Tensor:
    rows, columns = sizes[1], sizes[2]
    row, column = places // columns, places % columns
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        column = (column + splitmix64(row + first)) % columns
        row = (row + splitmix64(column + second)) % rows
    return row * columns + column
