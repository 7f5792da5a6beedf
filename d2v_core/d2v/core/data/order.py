"""Which samples stand in which batch, as a pure function of (seed, epoch, batch index, rank).

There is no generator whose state would have to be saved: resuming is setting two integers. Nothing here reads a sample.
"""

from collections.abc import Iterator
from typing import Any

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from d2v.core.masks import Draw

# Ends for which numbers are drawn; masks use the small ones.
_ORDER, _SAMPLE, _FEW = 100, 101, 103


def epoch_order(n: int, *, seed: int, epoch: int) -> Tensor:
    """The order of `n` samples in one epoch, Long `n`: each id once, sorted by a hash of (seed, epoch, id).

    >>> epoch_order(5, seed=0, epoch=0).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    drawn = Draw(seed=seed, update=epoch, ids=torch.arange(n), purpose=_ORDER).bits(1, 1, stream=0)
    return drawn[:, 0].argsort(stable=True)


def sample_seed(*, seed: int, epoch: int, id: int) -> int:
    """A number below 2^53 that seeds all that is random about one sample in one epoch.

    >>> sample_seed(seed=0, epoch=1, id=7) == sample_seed(seed=0, epoch=1, id=7)
    True
    """
    draw = Draw(seed=seed, update=epoch, ids=torch.tensor([id]), purpose=_SAMPLE)
    return int(draw.bits(1, 1, stream=0))


def few_of_each(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Ids of so many samples of each class, drawn by seed, for training with few labels.

    With the same seed a larger count adds to a smaller one.

    Args:
        labels: Long `n`, by id; negative = without a label, never drawn.
        count: of each class.
        seed: of the draw.

    Returns:
        Ids, Long, in rising order.

    Raises:
        ValueError: if a class has fewer; names its number.

    >>> few_of_each(torch.tensor([0, 1, 0, 1, 1]), 2, seed=0).shape
    torch.Size([4])
    """
    drawn = Draw(seed=seed, update=0, ids=torch.arange(len(labels)), purpose=_FEW).bits(1, 1, stream=0)
    order = drawn[:, 0].argsort(stable=True)
    kept = []
    for label in torch.unique(labels[labels >= 0]).tolist():
        own = order[labels[order] == label]
        if len(own) < count:
            raise ValueError(f"class {label} has {len(own)} samples, fewer than {count}")
        kept.append(own[:count])
    return torch.cat(kept).sort().values if kept else labels.new_empty(0)


@frozen(kw_only=True)
class Request:
    """One batch of one rank: the ids to read, in order."""

    epoch: int
    index: int
    ids: tuple[int, ...]


def _at_least(low: int) -> Any:
    def check(_: object, attribute: "Attribute[int]", value: int) -> None:
        if value < low:
            raise ValueError(f"{attribute.name} must be at least {low}, not {value}")

    return field(validator=check)


@frozen(kw_only=True)
class Plan:
    """How one epoch is dealt out to batches and ranks.

    The epoch's order is cut into global batches of `batch_size * world_size`; rank r takes every `world_size`-th sample
    of each, from the r-th on. So the union over the ranks depends on the product alone, and all samples of the whole
    batches are seen exactly once. The tail, what is left when no whole global batch can be made, is

    - dropped with `drop_last` (other samples in every epoch, where the order is shuffled): all ranks have as many
      batches of one size, as training needs;
    - dealt out the same way without it, so that all ranks together see each sample exactly once. The last batch is then
      smaller, and ranks beyond the tail's length have one batch less: sum over ranks after the last, not in between.

    Args:
        n: samples.
        batch_size: samples in a batch of one rank.
        seed: of the run.
        shuffle: False = in order of the ids.
        drop_last: whether the tail is dropped.
        rank: of this process.
        world_size: processes.

    Raises:
        ValueError: if a number is out of its range, or `drop_last` would drop everything.

    >>> plan = Plan(n=7, batch_size=2, shuffle=False, drop_last=False, rank=1, world_size=2)
    >>> [request.ids for request in plan.requests(epoch=0)]
    [(1, 3), (5,)]
    """

    n: int = _at_least(1)
    batch_size: int = _at_least(1)
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    rank: int = 0
    world_size: int = 1

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank must be from 0 to {self.world_size - 1} of {self.world_size}, not {self.rank}")
        if self.drop_last and self.n < self._whole:
            raise ValueError(
                f"{self.n} samples make no batch of {self.batch_size} on {self.world_size} process(es); "
                f"use a batch size of at most {self.n // self.world_size}"
            )

    @property
    def _whole(self) -> int:
        return self.batch_size * self.world_size

    @property
    def num_batches(self) -> int:
        """Batches of this rank in an epoch."""
        whole, tail = divmod(self.n, self._whole)
        return whole + (not self.drop_last and self.rank < tail)

    @property
    def uneven(self) -> bool:
        """Whether some ranks have one batch more than others."""
        return not self.drop_last and 0 < self.n % self._whole < self.world_size

    def requests(self, epoch: int, first: int = 0) -> Iterator[Request]:
        """The batches of an epoch from index `first` on."""
        order = epoch_order(self.n, seed=self.seed, epoch=epoch) if self.shuffle else torch.arange(self.n)
        for index in range(first, self.num_batches):
            of_all = order[index * self._whole : (index + 1) * self._whole]
            yield Request(epoch=epoch, index=index, ids=tuple(of_all[self.rank :: self.world_size].tolist()))
