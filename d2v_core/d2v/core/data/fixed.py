"""Batches of a fixed number of samples."""

from collections.abc import Iterator

import torch
from attrs import field, frozen
from attrs.validators import ge

from d2v.core.data.draws import Purpose, drawn
from d2v.core.data.permutation import KeyedPermutation
from d2v.core.data.plan import Request, check_dealing

_AT_ONCE = 4096  # ids whose places are computed together


@frozen(kw_only=True)
class FixedPlan:
    """Batches of `batch_size` samples on each rank, in a new order in every epoch.

    The epoch's order is cut into global batches of `batch_size * world_size`; rank r takes every `world_size`-th sample
    of each, from the r-th on. So the union over the ranks depends on the product alone, and all samples of the whole
    batches are seen exactly once. The tail, what is left when no whole global batch can be made, is

    - dropped with `drop_last` (other samples in every epoch, where the order is shuffled): all ranks have as many
      batches of one size, as training needs;
    - dealt out the same way without it, so that all ranks together see each sample exactly once. The last batch is then
      smaller, and ranks beyond the tail's length have one batch less: sum over ranks after the last, not in between.

    It takes no memory, whatever the number of samples. For a broken sample any other one stands in.

    Args:
        n: samples.
        batch_size: samples in a batch of one rank.
        seed: of the run.
        shuffle: False = in order of the ids.
        drop_last: whether the tail is dropped.
        rank: of this process.
        world_size: processes.

    Raises:
        DataError: if there are no samples.
        ValueError: if a number is out of its range, or `drop_last` would drop everything.

    >>> plan = FixedPlan(n=7, batch_size=2, shuffle=False, drop_last=False, rank=1, world_size=2)
    >>> [request.ids for request in plan.requests(epoch=0)]
    [(1, 3), (5,)]
    """

    n: int
    batch_size: int = field(validator=ge(1))
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    rank: int = 0
    world_size: int = 1

    def __attrs_post_init__(self) -> None:
        check_dealing(self.n, self.rank, self.world_size)
        if self.drop_last and self.n < self._whole:
            raise ValueError(
                f"{self.n} samples make no batch of {self.batch_size} on {self.world_size} process(es); "
                f"use a batch size of at most {self.n // self.world_size}"
            )

    @property
    def _whole(self) -> int:
        return self.batch_size * self.world_size

    @property
    def uneven(self) -> bool:
        """Whether some ranks have one batch more than others."""
        return not self.drop_last and 0 < self.n % self._whole < self.world_size

    def num_batches(self, epoch: int) -> int:
        """Batches of this rank in an epoch, the same in all."""
        del epoch
        whole, tail = divmod(self.n, self._whole)
        return whole + (not self.drop_last and self.rank < tail)

    def requests(self, epoch: int, first: int = 0) -> Iterator[Request]:
        """The batches of an epoch from index `first` on."""
        order = KeyedPermutation(self.n, seed=self.seed, epoch=epoch)
        end, step = self.num_batches(epoch), max(1, _AT_ONCE // self.batch_size)
        for low in range(first, end, step):
            high = min(low + step, end)
            places = self.rank + self.world_size * torch.arange(low * self.batch_size, high * self.batch_size)
            places = places[places < self.n]
            ids = order[places] if self.shuffle else places
            for index, own in enumerate(torch.split(ids, self.batch_size), low):
                yield Request(epoch=epoch, index=index, ids=tuple(own.tolist()))

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int:
        """Any sample, drawn from (seed, epoch, id)."""
        return drawn(Purpose.REPLACEMENT, seed=self.seed, epoch=epoch, id=id, attempt=attempt) % self.n
