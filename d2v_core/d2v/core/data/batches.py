"""Interface of all sources of batches, with a position that can be saved and restored.

Jobs depend on this protocol and on no loader, so that a stream, a mixture or a third-party loader can be used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Protocol

from d2v.core.data.identity import Identity
from d2v.core.model import Batch


class Batches(Protocol):
    """Batches of one split on one rank: one pass over it, or endless for training.

    The position is that of the next batch: batches that were read ahead do not count, and inside the loop's body it is
    already after the current batch. A position that was set applies to the next iteration, however the previous one
    ended. If none was set, endless batches continue where they stopped, and a single pass starts at its beginning. The
    batches after a position depend only on the position, the seeds and the files. Only one iteration at a time is
    allowed: continuing an older one is an error.
    """

    @property
    def broken(self) -> Mapping[str, str]:
        """Samples that this process could not read so far: name to reason."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, Any]:
        """Position as plain values; the same on all ranks.

        For batches with a `len` it is `{"epoch": e, "batch": i}`, and any batch of an epoch can be set.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the position; raises `ValueError` if there is no such position."""
        ...

    def continued(self, state: Mapping[str, Any], *, before: int) -> dict[str, Any]:
        """Return the position that continues the epoch of `state`, a position of `before` processes, on those of now.

        Nothing is taken twice in the epoch, and nothing is left out but a tail that is too short for all processes.

        Raises:
            DataError: if these batches cannot be continued by another number of processes.
        """
        ...

    def restart(self, state: Mapping[str, Any]) -> None:
        """Move to the beginning of the epoch after that of `state`, a position among other samples."""
        ...

    def identity(self) -> Identity | None:
        """Identity of the samples; None = unknown. It is called before training and must be cheap."""
        ...

    def name(self, id: int) -> str:
        """User's name of a sample, for its id in `Batch.ids`; one line of valid UTF-8 (`escaped`)."""
        ...

    def report(self) -> str:
        """Number and list of the samples that could not be read; empty if there are none."""
        ...


def known_length(batches: Iterable[Batch]) -> int | None:
    """Number of batches in an epoch (the current one if epochs differ); None if unknown, without `len`."""
    return len(batches) if isinstance(batches, Sized) else None
