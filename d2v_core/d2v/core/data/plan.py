"""What a loader asks of a plan: which ids make which batch, and who stands in for a broken sample.

A plan is a pure function of (seed, epoch, batch, rank). There is no generator whose state would have to be saved:
resuming is setting two integers. Plans read no samples.
"""

from collections.abc import Iterator
from typing import Protocol

from attrs import frozen

from d2v.core.data.broken import DataError
from d2v.core.validators import check, must


@frozen(kw_only=True)
class Request:
    """One batch of one rank: the ids to read, in order."""

    epoch: int
    index: int
    ids: tuple[int, ...]


class Plan(Protocol):
    """How each epoch is dealt out to batches, for one rank. Loaders copy it to their workers."""

    @property
    def n(self) -> int:
        """Samples, with the ids 0 to n-1."""
        ...

    @property
    def seed(self) -> int:
        """Of the run; samples are drawn by it too."""
        ...

    @property
    def uneven(self) -> bool:
        """Whether some ranks may have a batch more than others, so that training would wait for ever."""
        ...

    def num_batches(self, epoch: int) -> int:
        """Batches of this rank in an epoch; it may differ from epoch to epoch."""
        ...

    def requests(self, epoch: int, first: int = 0) -> Iterator[Request]:
        """The batches of an epoch from index `first` on."""
        ...

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int | None:
        """Which sample stands in for a broken one in training, in the same batch.

        Args:
            id: of the broken one.
            epoch: of the batch.
            attempt: from 0; the stand-in of the attempt before was broken too.

        Returns:
            An id with which the batch keeps within what is allowed, a function of the arguments and the seed; None =
            leave the place empty.
        """
        ...


def check_dealing(n: int, rank: int, world_size: int) -> None:
    """Raise an error unless there are samples and the rank is one of `world_size`."""
    if n < 1:
        raise DataError("the data set is empty: it has no samples")
    check_rank(rank, world_size)


def check_rank(rank: int, world_size: int) -> None:
    """Raise an error unless the rank is one of `world_size`."""
    check(must(lambda rank: 0 <= rank < world_size, f"from 0 to {world_size - 1}, the last of {world_size}"), rank=rank)
