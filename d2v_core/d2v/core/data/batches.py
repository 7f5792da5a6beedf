"""What everything above the data asks for: batches, and a place among them that can be read and set.

Jobs know this protocol and no loader, so that a stream, a mixture or somebody else's loader can stand in its place.
"""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Protocol

from d2v.core.data.identity import Identity
from d2v.core.model import Batch


class Batches(Protocol):
    """The batches of one split on one rank: one pass over it, or without end for training.

    The place is that of the batch that comes next: batches that were read ahead do not count, and inside the loop's
    body it is already behind the batch at hand. A place that was set holds for the next iteration, whatever became of
    the one before. Without one, endless batches go on where they were left, and a single pass begins at its beginning.
    What follows a place depends on it, on seeds and on the files alone. One iteration at a
    time: an older one that is gone on with is an error.
    """

    @property
    def broken(self) -> Mapping[str, str]:
        """What this process could not read so far: name to reason."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, Any]:
        """The place, as plain values; the same on all ranks.

        Of batches that have a `len` it is `{"epoch": e, "batch": i}`, and every batch of an epoch can be set.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the place; raises `ValueError` where there is none such."""
        ...

    def restart(self, state: Mapping[str, Any]) -> None:
        """Set the place where the epoch after that of a place begins, which was one among other samples."""
        ...

    def identity(self) -> Identity | None:
        """Which samples these are; None = that cannot be said. It is asked before training, and must be cheap."""
        ...

    def name(self, id: int) -> str:
        """What the user knows a sample by, for its id in `Batch.ids`; in one line of valid UTF-8 (`escaped`)."""
        ...

    def report(self) -> str:
        """Count and list of the samples that could not be read; empty if all could."""
        ...


def known_length(batches: Iterable[Batch]) -> int | None:
    """Batches in an epoch, the present one where they differ; None where that is not known: they have no `len`."""
    return len(batches) if isinstance(batches, Sized) else None
