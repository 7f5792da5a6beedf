"""Batches of samples of any length in one random order, limited by a budget of tokens."""

from bisect import bisect_right
from collections.abc import Iterator

import torch
from torch import Tensor

from d2v.core.data.budget import BudgetPlan, cut
from d2v.core.data.draws import Purpose
from d2v.core.data.permutation import KeyedPermutation
from d2v.core.data.plan import Request

_CHUNK = 32  # batches whose ids are computed together


class RandomOrderPlan:
    """Batches within a budget of tokens, of samples that follow each other in a random order.

    The seed permutes the samples once. This order is cut into batches of s <= max_samples with
    s * longest <= max_tokens, see `cut`; every epoch permutes the order of the batches. So do the published runs on
    sentences. Samples of similar length are not together, unlike in `BudgetPlan`: more padding, but batches are random.

    Rank r takes every `world_size`-th batch; the rest, less than one for each rank, is dropped, different ones in every
    epoch. A broken sample is replaced by one that is no longer.

    Args:
        lengths: Int `n`, length of each sample by id.
        max_tokens: limit of samples x longest sample of a batch on one rank; None = no limit.
        max_samples: limit of samples in a batch on one rank; None = no limit.
        seed: seed of the run.
        rank: rank of this process.
        world_size: number of processes.

    Raises:
        DataError: if there are no samples.
        ValueError: if a number is out of range, no limit is given, a sample is longer than `max_tokens`, or there are
            fewer batches than processes.

    >>> plan = RandomOrderPlan(lengths=torch.tensor([3, 9, 3, 5, 3, 2]), max_tokens=10)
    >>> sorted(id for request in plan.requests(epoch=0) for id in request.ids)
    [0, 1, 2, 3, 4, 5]
    """

    def __init__(
        self,
        *,
        lengths: Tensor,
        max_tokens: int | None = None,
        max_samples: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        # It checks the arguments, and knows which samples are no longer than another one.
        self._by_length = BudgetPlan(
            lengths=lengths, max_tokens=max_tokens, max_samples=max_samples, seed=seed, drop_last=False
        )
        self.n, self.seed, self.rank, self.world_size = len(lengths), seed, rank, world_size
        self._order = KeyedPermutation(self.n, seed=seed, epoch=0)[torch.arange(self.n)]
        self._runs = cut(lengths[self._order], max_tokens=max_tokens, max_samples=max_samples)
        self._total = self._runs[-1].number
        if self._total < world_size:
            raise ValueError(
                f"{self.n} samples make {self._total} batches, fewer than {world_size} processes; "
                "lower max_tokens or max_samples"
            )

    @property
    def uneven(self) -> bool:
        """False: all ranks have the same number of batches."""
        return False

    @property
    def units(self) -> int:
        """1: the units are batches."""
        return 1

    def num_batches(self, epoch: int, skip: int = 0) -> int:
        """Number of batches of this rank in an epoch after `skip` batches, the same in all epochs."""
        del epoch
        return max(0, self._total - skip) // self.world_size

    def requests(self, epoch: int, first: int = 0, skip: int = 0) -> Iterator[Request]:
        """Yield the batches of an epoch after `skip` batches of all ranks, starting at index `first`."""
        order = KeyedPermutation(self._total, seed=self.seed, epoch=epoch, purpose=Purpose.BATCHES)
        end = self.num_batches(epoch, skip)
        for low in range(first, end, _CHUNK):
            numbers = order[skip + self.rank + self.world_size * torch.arange(low, min(low + _CHUNK, end))]
            for index, number in enumerate(numbers.tolist(), low):
                run = self._runs[bisect_right(self._runs, number, key=lambda run: run.number) - 1]
                start = run.start + (number - run.number) * run.size
                ids = self._order[start : start + run.size]
                yield Request(epoch=epoch, index=index, ids=tuple(ids.tolist()))

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int | None:
        """Return a sample that is no longer, drawn from (seed, epoch, id); None if there is none."""
        return self._by_length.replacement(id, epoch=epoch, attempt=attempt)
