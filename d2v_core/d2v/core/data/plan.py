"""Plan interface: the ids of each batch, and replacements for broken samples.

A plan is a pure function of (seed, epoch, batch, rank). There is no generator state to save: resuming means setting
integers. Plans read no samples.

The order of an epoch does not depend on the number of processes, which share it. So an epoch that was begun on some
processes can be continued on another number of them, from the first unit (sample or batch) that was not taken.
"""

from collections.abc import Iterator
from typing import Protocol

from attrs import frozen

from d2v.core.data.broken import DataError
from d2v.core.validators import check, must


@frozen(kw_only=True)
class Request:
    """Ids to read for one batch of one rank, in order."""

    epoch: int
    index: int
    ids: tuple[int, ...]


class Plan(Protocol):
    """Batches of each epoch, for one rank. Loaders copy the plan to their workers."""

    @property
    def n(self) -> int:
        """Number of samples; their ids are 0 to n-1."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the run, also used for the randomness of the samples."""
        ...

    @property
    def uneven(self) -> bool:
        """Whether some ranks may have one batch more than others, which would make training hang."""
        ...

    @property
    def units(self) -> int:
        """Units of the epoch's order that a batch takes for each rank: samples, or 1 if the units are batches."""
        ...

    def num_batches(self, epoch: int, skip: int = 0) -> int:
        """Number of batches of this rank in an epoch after `skip` units; may differ between epochs."""
        ...

    def requests(self, epoch: int, first: int = 0, skip: int = 0) -> Iterator[Request]:
        """Yield the batches of an epoch after `skip` units, starting at index `first`."""
        ...

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int | None:
        """Return the replacement for a broken sample in training, in the same batch.

        Args:
            id: id of the broken sample.
            epoch: epoch of the batch.
            attempt: from 0; the replacement of the previous attempt was broken too.

        Returns:
            An id that keeps the batch within its limits, a function of the arguments and the seed; None = leave the
            sample out.
        """
        ...


def check_sharding(n: int, rank: int, world_size: int) -> None:
    """Raise an error unless there are samples and the rank is below `world_size`."""
    if n < 1:
        raise DataError("the data set is empty: it has no samples")
    check_rank(rank, world_size)


def check_rank(rank: int, world_size: int) -> None:
    """Raise an error unless the rank is from 0 to `world_size` - 1."""
    check(must(lambda rank: 0 <= rank < world_size, f"from 0 to {world_size - 1}, the last of {world_size}"), rank=rank)
