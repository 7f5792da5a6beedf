"""A hint for runs on a busy machine: threads that wait for each other cost far more than they give there."""

import logging
import os
import time
from collections.abc import Callable

__all__ = ["BusyHint", "load", "load_text", "usable_processors"]

_logger = logging.getLogger(__name__)
_WINDOW = 5.0  # seconds over which a rate is taken
_MUCH = 0.5  # of the best rate so far
_MARGIN = 0.75  # of a processor that other programs may use without being noticed


def usable_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """Threads of all programs that ran or wanted to, on average over the last minute; None where it is not known."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return None


def load_text() -> str:
    """The load as a line of a report.

    >>> load_text().endswith((" processor", " processors"))
    True
    """
    known, count = load(), usable_processors()
    ending = f"on {count} processor{'s' if count > 1 else ''}"
    return f"unknown {ending}" if known is None else f"{known:.1f} {ending}"


class BusyHint:
    """Says once in a run that the machine is busy: at its start, or when updates become much slower.

    It is a hook of `fit`. The load is looked at when the run starts and when five seconds took half the updates of the
    best five; other updates cost one look at the clock.

    Args:
        threads: that the run computes on; nothing is said of a single one.
        tell: gets the line; None = a warning of the logger.
        load: of the machine, or None.
        processors: that may be used.
        clock: in seconds.

    >>> told = []
    >>> hint = BusyHint(threads=2, tell=told.append, load=lambda: 5.1, processors=2)
    >>> hint.on_step_end(1), told
    (None, ['the machine is busy (load 5.1 on 2 processors): threads=1 may be much faster'])
    """

    def __init__(
        self,
        threads: int,
        *,
        tell: Callable[[str], object] | None = None,
        load: Callable[[], float | None] = load,
        processors: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = threads
        self._tell = _logger.warning if tell is None else tell
        self._load = load
        self._processors = usable_processors() if processors is None else processors
        self._clock = clock
        self._done = threads < 2
        self._since: float | None = None
        self._updates = 0
        self._best = 0.0
        if not self._done:
            before = load()
            # The run has not computed yet: all of it is other programs'.
            self._judge(before, others=before)

    def on_step_end(self, step: int) -> None:
        """An update is finished."""
        del step
        if self._done:
            return
        now = self._clock()
        if self._since is None:
            self._since = now
            return
        self._updates += 1
        if now - self._since < _WINDOW:
            return
        rate = self._updates / (now - self._since)
        self._since, self._updates = now, 0
        self._best = max(self._best, rate)
        if rate < _MUCH * self._best:
            found = self._load()
            self._judge(found, others=None if found is None else found - self._threads)

    def _judge(self, found: float | None, *, others: float | None) -> None:
        if found is None or others is None or others + self._threads < self._processors + _MARGIN:
            return
        self._done = True
        free = max(1, min(self._threads - 1, int(self._processors - others)))
        place = f"load {found:.1f} on {self._processors} processors"
        self._tell(f"the machine is busy ({place}): threads={free} may be much faster")
