"""Order of an epoch as a keyed bijection: positions are computed, not stored.

A Feistel network over a grid of rows x columns >= n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
A position is (row, column). In turn, the column is shifted by a hash of the row and the row by a hash of the column.
Each round is invertible, so the network is a bijection of the grid. If the result is n or above, it is applied again
(cycle walking). That is rare, because the grid has fewer than sqrt(n) surplus positions.
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

_ROUNDS = 12  # with 8, the orders of 5 or 6 samples are not equally frequent
_LARGEST = 1 << 52  # up to here a square root in float64 is exact enough


class KeyedPermutation:
    """Permutation of the numbers 0 to n-1 by (seed, epoch), O(1) in memory and in time per position.

    Args:
        n: length of the permutation.
        seed: seed of the run.
        epoch: each epoch has a different order.
        purpose: makes permutations for different purposes independent.
        stream: makes permutations of the same purpose independent, for example the number of a window.

    Raises:
        ValueError: if `n` is not from 0 to 2^52.
        IndexError: when indexing, if a position is not from 0 to n-1.

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
    def __getitem__(self, position: int) -> int: ...
    @overload
    def __getitem__(self, position: Tensor) -> Tensor: ...
    def __getitem__(self, position: int | Tensor) -> int | Tensor:
        """Return the number at a position, or at each of the positions, Long of any shape."""
        if not isinstance(position, Tensor):
            return int(self[torch.tensor([position])])
        if position.numel() and not (int(position.min()) >= 0 and int(position.max()) < self.n):
            raise IndexError(
                f"positions must be from 0 to {self.n - 1}, not {int(position.min())} to {int(position.max())}"
            )
        sizes = torch.tensor([self.n, self._rows, -(-self.n // self._rows)])[:, None].expand(3, position.numel())
        return _walked(position.flatten(), sizes, self._keys.expand(-1, position.numel())).view(position.shape)


def permuted_in_groups(positions: Tensor, sizes: Tensor, groups: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Permute positions of many small groups in one call, each group with its own permutation.

    Args:
        positions: Long `k`, from 0 to the size of the group - 1.
        sizes: Long `k`, size n of the group of each position.
        groups: Long `k`, number of that group: `KeyedPermutation(n, ..., stream=group)[position]`.
        seed: seed of the run.
        epoch: each epoch has a different order.

    >>> positions, sizes, groups = torch.tensor([1, 0, 2]), torch.tensor([2, 3, 3]), torch.tensor([7, 8, 8])
    >>> found = permuted_in_groups(positions, sizes, groups, seed=0, epoch=0).tolist()
    >>> order = KeyedPermutation(3, seed=0, epoch=0, stream=8)
    >>> found[1:] == [order[0], order[2]]
    True
    """
    distinct, own = torch.unique(groups, return_inverse=True)
    keys = _keys(distinct, seed=seed, epoch=epoch, purpose=Purpose.ORDER)[:, own]
    rows = (sizes - 1).double().sqrt().long() + 1
    return _walked(positions, torch.stack([sizes, rows, -(-sizes // rows)]), keys)


def _keys(streams: Tensor, *, seed: int, epoch: int, purpose: int) -> Tensor:
    return Draw(seed=seed, update=epoch, ids=streams, purpose=purpose).bits(1, _ROUNDS, stream=0).T


def _walked(positions: Tensor, sizes: Tensor, keys: Tensor) -> Tensor:
    found = _once(positions, sizes, keys)
    outside = (found >= sizes[0]).nonzero()[:, 0]
    while len(outside):
        found[outside] = _once(found[outside], sizes[:, outside], keys[:, outside])
        outside = outside[found[outside] >= sizes[0, outside]]
    return found


def _once(positions: Tensor, sizes: Tensor, keys: Tensor) -> Tensor:
    rows, columns = sizes[1], sizes[2]
    row, column = positions // columns, positions % columns
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        column = (column + splitmix64(row + first)) % columns
        row = (row + splitmix64(column + second)) % rows
    return row * columns + column
