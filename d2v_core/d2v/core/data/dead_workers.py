"""Explain the error of a worker process that died; torch raises it in the main thread, wherever that is."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from d2v.core.data.broken import DataError

_DIED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([^.]*)|exited unexpectedly)"
)


class DeadWorkerError(DataError):
    """A process that reads data died. Batches are not lost: they are read again when the run is resumed."""


@contextmanager
def dead_workers_named() -> Iterator[None]:
    """Replace torch's error about a worker process that died by one that says what to do.

    Raises:
        DeadWorkerError: naming the process, the signal and what to do.

    >>> with dead_workers_named():  # doctest: +ELLIPSIS
    ...     raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    Traceback (most recent call last):
    d2v.core.data.dead_workers.DeadWorkerError: a process that reads data (pid 7) died by signal Killed; ...
    """
    try:
        yield
    except RuntimeError as error:
        found = _DIED.search(str(error))
        if found is None:
            raise
        how = f"by signal {found[2]}" if found[2] else "unexpectedly"
        raise DeadWorkerError(
            f"a process that reads data (pid {found[1]}) died {how}; if the memory was used up, set fewer "
            "data.num_workers; a run goes on with resume=true"
        ) from error
