"""Batches of samples of about one length, as many as a budget of tokens allows.

`cut` is the published rule. The plan sorts once, by length; what an epoch changes is who stands where among samples of
one length, and the order of the batches. Both are keyed permutations, so that four bytes a sample are all it holds.
"""

from bisect import bisect_right
from collections.abc import Iterator

import torch
from attrs import frozen
from attrs.validators import ge, optional
from torch import Tensor

from d2v.core.data.draws import Purpose, drawn
from d2v.core.data.permutation import KeyedPermutation, permuted_in_groups
from d2v.core.data.plan import Request, check_dealing
from d2v.core.validators import check

_AT_ONCE = 32  # batches whose ids are computed together
_NEIGHBOURS = 100  # of how many samples a stand-in is one at least, if there are as many


@frozen
class Run:
    """Successive batches of one size: the first batch's number, its first place, and that size."""

    number: int
    start: int
    size: int


def cut(
    lengths: Tensor, *, max_tokens: int | None = None, max_samples: int | None = None, multiple: int = 1
) -> list[Run]:
    """Cut a sequence of samples into batches by the rule of the original toolkit.

    From where the last one ended, a batch takes as many samples s as fit: s * longest <= max_tokens and
    s <= max_samples. Of `multiple` or more it takes a multiple of it, and the rest begins the next one. The original
    drops a last batch that is no multiple; here it stays.

    Args:
        lengths: Int `n`, in the order of the sequence, at most `max_tokens` each.
        max_tokens: samples x longest sample of a batch; None = any.
        max_samples: in a batch; None = any.
        multiple: `required_batch_size_multiple`.

    Returns:
        Runs of batches of one size, in order; from a last one beyond the end it can be told where the others end.

    >>> [(run.start, run.size) for run in cut(torch.tensor([5, 4, 3, 3, 2, 2, 1]), max_tokens=10)]
    [(0, 2), (2, 3), (5, 2), (7, 0)]
    """
    n = len(lengths)
    # Ends of stretches of one length: within one, batch follows batch without a look at the samples.
    ends = torch.cat([(lengths.diff() != 0).nonzero()[:, 0] + 1, torch.tensor([n])]).tolist()
    runs: list[Run] = []
    place = number = stretch = 0
    while place < n:
        while ends[stretch] <= place:
            stretch += 1
        first = max(1, int(lengths[place]))
        most = min(max_samples or n, n if max_tokens is None else max_tokens // first)
        window = lengths[place : place + most]
        fits = len(window)
        if max_tokens is not None and ends[stretch] < place + fits:
            longest = window.cummax(0).values.long() if int(window.max()) > first else first
            fits = int((longest * torch.arange(1, fits + 1) <= max_tokens).sum())
        size = fits - fits % multiple if fits > multiple else fits
        # As long as a whole window lies in the stretch, or all that is left, its batches are alike.
        count = max(1, (ends[stretch] - place - most) // size + 1) if fits == most else 1
        if not runs or runs[-1].size != size:
            runs.append(Run(number, place, size))
        place, number = place + size * count, number + count
    return [*runs, Run(number, place, 0)]


def bucket_limits(ascending: Tensor, num_buckets: int) -> Tensor:
    """Lengths up to which buckets of about as many samples go: the lower percentiles at 100 k / num_buckets.

    >>> bucket_limits(torch.tensor([5, 5, 5, 9, 20, 21, 22, 90]), 3)
    tensor([ 5, 20, 90])
    """
    places = torch.arange(1, num_buckets + 1) * (len(ascending) - 1) // num_buckets
    limits: Tensor = torch.unique(ascending[places])
    return limits


class BudgetPlan:
    """Batches within a budget of tokens, of samples of about one length: the longest first, random among equals.

    A batch of s samples has s <= max_samples and s * longest <= max_tokens, where the longest counts as its bucket's
    limit; see `cut`. In every epoch samples change places with those of their bucket (or length), and the order of the
    batches is a new one. Rank r takes every `world_size`-th of them, from the r-th on. Those that are left over are

    - dropped with `drop_last` (others in every epoch): all ranks have as many, as training needs;
    - dealt out without it, so that all ranks together see each sample exactly once. Some ranks may then have a batch
      less: sum over ranks after the last, not in between.

    For a broken sample one of its bucket stands in, or where that is small, one of the next shorter ones.

    Args:
        lengths: Int `n`, the length of each sample by id, as it comes to the model (cropped). Int32 is kept as it is.
        max_tokens: samples x longest sample of a batch of one rank; None = any.
        max_samples: in a batch of one rank; None = any.
        multiple: batches of that many samples or more take a multiple of it (the original: 8).
        num_buckets: of about as many samples; a sample counts as long as its bucket's limit. More of them pad less,
            fewer mix more. 0 = a bucket for each length, as published.
        seed: of the run.
        shuffle: False = one order for all epochs, by length and id.
        drop_last: whether batches that are left over are dropped.
        rank: of this process.
        world_size: processes.

    Raises:
        DataError: if there are no samples.
        ValueError: if a number is out of its range, no limit is given, a sample is longer than `max_tokens`, or there
            are fewer batches than processes, with `drop_last`.

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
        check_dealing(self.n, rank, world_size)
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
        # First places of the buckets, and the end: whoever stands between two of them may change places.
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

    def num_batches(self, epoch: int) -> int:
        """Batches of this rank in an epoch, the same in all."""
        del epoch
        each, left = divmod(self._total, self.world_size)
        return each + (not self.drop_last and self.rank < left)

    def requests(self, epoch: int, first: int = 0) -> Iterator[Request]:
        """The batches of an epoch from index `first` on."""
        order = KeyedPermutation(self._total, seed=self.seed, epoch=epoch, purpose=Purpose.BATCHES)
        end = self.num_batches(epoch)
        for low in range(first, end, _AT_ONCE):
            numbers = self.rank + self.world_size * torch.arange(low, min(low + _AT_ONCE, end))
            spans = [self._span(number) for number in (order[numbers] if self.shuffle else numbers).tolist()]
            ids = self._ids(torch.cat([torch.arange(start, stop) for start, stop in spans]), epoch)
            for index, own in enumerate(torch.split(ids, [stop - start for start, stop in spans]), low):
                yield Request(epoch=epoch, index=index, ids=tuple(own.tolist()))

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int | None:
        """A sample that counts no longer, drawn from (seed, epoch, id); None if there is no other such one."""
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

    def _ids(self, places: Tensor, epoch: int) -> Tensor:
        if self.shuffle:
            bucket = torch.bucketize(places, self._starts, right=True) - 1
            start = self._starts[bucket]
            sizes = self._starts[bucket + 1] - start
            places = start + permuted_in_groups(places - start, sizes, bucket, seed=self.seed, epoch=epoch)
        return self._order[places].long()


def _check_lengths(lengths: Tensor, max_tokens: int | None) -> None:
    if lengths.dim() != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths must be whole numbers of shape n, not {lengths.dtype} {tuple(lengths.shape)}")
    if int(lengths.min()) < 0:
        raise ValueError(f"sample {int(lengths.argmin())} has length {int(lengths.min())}, below 0")
    most = min(max_tokens or (1 << 31) - 1, (1 << 31) - 1)
    if int(lengths.max()) > most:
        raise ValueError(
            f"sample {int(lengths.argmax())} has length {int(lengths.max())}, above max_tokens={most}; "
            "leave such samples out, crop them or raise max_tokens"
        )
