"""Batches of a fixed number of samples."""

from collections.abc import Iterator

import torch
from attrs import field, frozen
from attrs.validators import ge

from d2v.core.data.draws import Purpose, drawn
from d2v.core.data.permutation import KeyedPermutation
from d2v.core.data.plan import Request, check_sharding

_CHUNK = 4096  # ids that are computed together


@frozen(kw_only=True)
class FixedPlan:
    """Batches of `batch_size` samples on each rank, in a new order in every epoch.

    The epoch's order is cut into global batches of `batch_size * world_size`. Rank r takes every `world_size`-th sample
    of each, starting at the r-th. The union over the ranks therefore depends only on the product, and each sample of
    the full batches is seen exactly once. The tail, which does not fill a global batch, is

    - dropped with `drop_last` (different samples in every epoch if the order is shuffled): all ranks have the same
      number of batches of the same size, as training needs;
    - otherwise distributed in the same way, so that all ranks together see each sample exactly once. The last batch is
      then smaller, and ranks beyond the tail's length have one batch less: reduce over ranks only after the last batch.

    Memory use does not depend on the number of samples. A broken sample is replaced by any other one.

    Args:
        n: number of samples.
        batch_size: samples per batch on one rank.
        seed: seed of the run.
        shuffle: False = in order of the ids.
        drop_last: whether the tail is dropped.
        rank: rank of this process.
        world_size: number of processes.

    Raises:
        DataError: if there are no samples.
        ValueError: if a number is out of range, or `drop_last` would drop everything.

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
        check_sharding(self.n, self.rank, self.world_size)
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

    @property
    def units(self) -> int:
        """Samples of a batch."""
        return self.batch_size

    def num_batches(self, epoch: int, skip: int = 0) -> int:
        """Number of batches of this rank in an epoch after `skip` samples, the same in all epochs."""
        del epoch
        whole, tail = divmod(max(0, self.n - skip), self._whole)
        return whole + (not self.drop_last and self.rank < tail)

    def requests(self, epoch: int, first: int = 0, skip: int = 0) -> Iterator[Request]:
        """Yield the batches of an epoch after `skip` samples, starting at index `first`."""
        order = KeyedPermutation(self.n, seed=self.seed, epoch=epoch)
        end, step = self.num_batches(epoch, skip), max(1, _CHUNK // self.batch_size)
        for low in range(first, end, step):
            high = min(low + step, end)
            own = torch.arange(low * self.batch_size, high * self.batch_size)
            positions = skip + self.rank + self.world_size * own
            positions = positions[positions < self.n]
            ids = order[positions] if self.shuffle else positions
            for index, batch in enumerate(torch.split(ids, self.batch_size), low):
                yield Request(epoch=epoch, index=index, ids=tuple(batch.tolist()))

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int:
        """Return any sample, drawn from (seed, epoch, id)."""
        return drawn(Purpose.REPLACEMENT, seed=self.seed, epoch=epoch, id=id, attempt=attempt) % self.n
