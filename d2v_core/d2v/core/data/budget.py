"""Batches of samples of similar length, limited by a budget of tokens.

`cut` is the published rule. The plan sorts once, by length. Each epoch permutes samples of equal length and the order
of the batches. Both are keyed permutations, so the plan stores only four bytes per sample.
"""

from bisect import bisect_right
from collections.abc import Iterator

import torch
from attrs import frozen
from attrs.validators import ge, optional
from torch import Tensor

from d2v.core.data.draws import Purpose, drawn
from d2v.core.data.permutation import KeyedPermutation, permuted_in_groups
from d2v.core.data.plan import Request, check_sharding
from d2v.core.validators import check

_CHUNK = 32  # batches whose ids are computed together
_NEIGHBOURS = 100  # a replacement is drawn from at least this many samples, if there are as many


@frozen
class Run:
    """Consecutive batches of equal size: number and start of the first batch, and the size."""

    number: int
    start: int
    size: int


def cut(
    lengths: Tensor, *, max_tokens: int | None = None, max_samples: int | None = None, multiple: int = 1
) -> list[Run]:
    """Cut a sequence of samples into batches by the rule of the original toolkit.

    A batch starts where the previous one ends and takes as many samples s as fit: s * longest <= max_tokens and
    s <= max_samples. If `multiple` or more fit, it takes a multiple of it and the rest starts the next batch. The
    original drops a last batch that is not a multiple; here it is kept.

    Args:
        lengths: Int `n`, in the order of the sequence, at most `max_tokens` each.
        max_tokens: limit of samples x longest sample of a batch; None = no limit.
        max_samples: limit of samples in a batch; None = no limit.
        multiple: `required_batch_size_multiple`.

    Returns:
        Runs of batches of equal size, in order, and an empty run at the end that marks where the last one ends.

    >>> [(run.start, run.size) for run in cut(torch.tensor([5, 4, 3, 3, 2, 2, 1]), max_tokens=10)]
    [(0, 2), (2, 3), (5, 2), (7, 0)]
    """
    n = len(lengths)
    # Ends of stretches of equal length: within a stretch, batches are cut without looking at the samples.
    ends = torch.cat([(lengths.diff() != 0).nonzero()[:, 0] + 1, torch.tensor([n])]).tolist()
    runs: list[Run] = []
    position = number = stretch = 0
    while position < n:
        while ends[stretch] <= position:
            stretch += 1
        first = max(1, int(lengths[position]))
        most = min(max_samples or n, n if max_tokens is None else max_tokens // first)
        window = lengths[position : position + most]
        fits = len(window)
        if max_tokens is not None and ends[stretch] < position + fits:
            longest = window.cummax(0).values.long() if int(window.max()) > first else first
            fits = int((longest * torch.arange(1, fits + 1) <= max_tokens).sum())
        size = fits - fits % multiple if fits > multiple else fits
        # As long as a full window, or everything that is left, is inside the stretch, all batches have this size.
        count = max(1, (ends[stretch] - position - most) // size + 1) if fits == most else 1
        if not runs or runs[-1].size != size:
            runs.append(Run(number, position, size))
        position, number = position + size * count, number + count
    return [*runs, Run(number, position, 0)]


def bucket_limits(ascending: Tensor, num_buckets: int) -> Tensor:
    """Upper length limits of buckets of about equal size: the lower percentiles at 100 k / num_buckets.

    >>> bucket_limits(torch.tensor([5, 5, 5, 9, 20, 21, 22, 90]), 3)
    tensor([ 5, 20, 90])
    """
    positions = torch.arange(1, num_buckets + 1) * (len(ascending) - 1) // num_buckets
    limits: Tensor = torch.unique(ascending[positions])
    return limits


class BudgetPlan:
    """Batches within a budget of tokens, of samples of similar length, in random order among samples of a bucket.

    A batch of s samples has s <= max_samples and s * longest <= max_tokens, where a sample counts with the limit of its
    bucket; see `cut`. Every epoch permutes the samples within their buckets (or lengths) and the order of the batches.
    Rank r takes every `world_size`-th batch, starting at the r-th. Remaining batches are

    - dropped with `drop_last` (different ones in every epoch): all ranks have the same number, as training needs;
    - otherwise distributed, so that all ranks together see each sample exactly once. Some ranks may then have one batch
      less: reduce over ranks only after the last batch.

    A broken sample is replaced by one of its bucket, or of the next shorter buckets if its own is small.

    Args:
        lengths: Int `n`, length of each sample by id, as the model receives it (cropped). Int32 is not copied.
        max_tokens: limit of samples x longest sample of a batch on one rank; None = no limit.
        max_samples: limit of samples in a batch on one rank; None = no limit.
        multiple: batches of that many samples or more take a multiple of it (the original: 8).
        num_buckets: number of buckets of about equal size; a sample counts with the length limit of its bucket. More
            buckets mean less padding, fewer mean more mixing. 0 = a bucket for each length, as published.
        seed: seed of the run.
        shuffle: False = the same order in all epochs, by length and id.
        drop_last: whether remaining batches are dropped.
        rank: rank of this process.
        world_size: number of processes.

    Raises:
        DataError: if there are no samples.
        ValueError: if a number is out of range, no limit is given, a sample is longer than `max_tokens`, or there are
            fewer batches than processes, with `drop_last`.

    >>> plan = BudgetPlan(lengths=torch.tensor([3, 9, 3, 5, 3, 2]), max_tokens=10, shuffle=False, drop_last=False)
    >>> [request.ids for request in plan.requests(epoch=0)]
    [(1,), (3, 0), (2, 4, 5)]
    """

    def __init__(
        self,
        *,
        lengths: Tensor,
        max_tokens: int | None = None,
        max_samples: int | None = None,
        multiple: int = 1,
        num_buckets: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.n = len(lengths)
        check_sharding(self.n, rank, world_size)
        if max_tokens is None and max_samples is None:
            raise ValueError("give max_tokens or max_samples, or both: nothing limits a batch")
        check(optional(ge(1)), max_tokens=max_tokens, max_samples=max_samples)
        check(ge(1), multiple=multiple)
        check(ge(0), num_buckets=num_buckets)
        _check_lengths(lengths, max_tokens)
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.rank, self.world_size = rank, world_size
        self.lengths = lengths.to(torch.int32)
        order = torch.argsort(self.lengths, descending=True, stable=True)
        self._order = order.to(torch.int32) if self.n < 1 << 31 else order
        counted = self.lengths[order]
        del order
        if num_buckets:
            limits = bucket_limits(counted.flip(0), num_buckets)
            counted = limits[torch.bucketize(counted, limits)]
        # Starts of the buckets, and the end: samples between two of them are permuted.
        firsts = (counted.diff() != 0).nonzero()[:, 0] + 1
        self._starts = torch.cat([torch.tensor([0]), firsts, torch.tensor([self.n])])
        self._limits = counted[self._starts[:-1]].flip(0)
        self._runs = cut(counted, max_tokens=max_tokens, max_samples=max_samples, multiple=multiple)
        self._total = self._runs[-1].number
        if drop_last and self._total < world_size:
            raise ValueError(
                f"{self.n} samples make {self._total} batches, fewer than {world_size} processes; "
                "lower max_tokens or max_samples"
            )

    @property
    def uneven(self) -> bool:
        """Whether some ranks have one batch more than others."""
        return not self.drop_last and self._total % self.world_size > 0

    @property
    def units(self) -> int:
        """1: the units are batches."""
        return 1

    def num_batches(self, epoch: int, skip: int = 0) -> int:
        """Number of batches of this rank in an epoch after `skip` batches, the same in all epochs."""
        del epoch
        each, left = divmod(max(0, self._total - skip), self.world_size)
        return each + (not self.drop_last and self.rank < left)

    def requests(self, epoch: int, first: int = 0, skip: int = 0) -> Iterator[Request]:
        """Yield the batches of an epoch after `skip` batches of all ranks, starting at index `first`."""
        order = KeyedPermutation(self._total, seed=self.seed, epoch=epoch, purpose=Purpose.BATCHES)
        end = self.num_batches(epoch, skip)
        for low in range(first, end, _CHUNK):
            numbers = skip + self.rank + self.world_size * torch.arange(low, min(low + _CHUNK, end))
            spans = [self._span(number) for number in (order[numbers] if self.shuffle else numbers).tolist()]
            ids = self._ids(torch.cat([torch.arange(start, stop) for start, stop in spans]), epoch)
            for index, own in enumerate(torch.split(ids, [stop - start for start, stop in spans]), low):
                yield Request(epoch=epoch, index=index, ids=tuple(own.tolist()))

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int | None:
        """Return a sample that counts as no longer, drawn from (seed, epoch, id); None if there is none."""
        shorter = torch.bucketize(self.lengths[id], self._limits)
        start, stop = self._starts.flip(0)[shorter + 1], self._starts.flip(0)[shorter]
        among = int(torch.maximum(stop, (start + _NEIGHBOURS).clamp(max=self.n)) - start)
        if among == 1:
            return None
        number = drawn(Purpose.REPLACEMENT, seed=self.seed, epoch=epoch, id=id, attempt=attempt)
        return int(self._order[int(start) + number % among])

    def _span(self, number: int) -> tuple[int, int]:
        run = self._runs[bisect_right(self._runs, number, key=lambda run: run.number) - 1]
        start = run.start + (number - run.number) * run.size
        return start, start + run.size

    def _ids(self, positions: Tensor, epoch: int) -> Tensor:
        if self.shuffle:
            bucket = torch.bucketize(positions, self._starts, right=True) - 1
            start = self._starts[bucket]
            sizes = self._starts[bucket + 1] - start
            positions = start + permuted_in_groups(positions - start, sizes, bucket, seed=self.seed, epoch=epoch)
        return self._order[positions].long()


def _check_lengths(lengths: Tensor, max_tokens: int | None) -> None:
    if lengths.dim() != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths must be integers of shape n, not {lengths.dtype} {tuple(lengths.shape)}")
    if int(lengths.min()) < 0:
        raise ValueError(f"sample {int(lengths.argmin())} has length {int(lengths.min())}, below 0")
    most = min(max_tokens or (1 << 31) - 1, (1 << 31) - 1)
    if int(lengths.max()) > most:
        raise ValueError(
            f"sample {int(lengths.argmax())} has length {int(lengths.max())}, above max_tokens={most}; "
            "leave such samples out, crop them or raise max_tokens"
        )
