"""Hint for runs on a busy machine, where several threads can be much slower than one."""

import logging
import os
import time
from collections.abc import Callable

__all__ = ["BusyHint", "load", "load_text", "usable_processors"]

_logger = logging.getLogger(__name__)
_WINDOW = 5.0  # seconds over which a rate is measured
_SLOW = 0.5  # fraction of the best rate so far
_MARGIN = 0.75  # CPU cores that other programs may use without a hint


def usable_processors() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """Return the load average of the last minute; None if unknown."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not available on Windows
        return None


def load_text() -> str:
    """Return the load as text for a report.

    >>> load_text().endswith((" CPU core", " CPU cores"))
    True
    """
    known, count = load(), usable_processors()
    ending = f"on {count} CPU core{'s' if count > 1 else ''}"
    return f"unknown {ending}" if known is None else f"{known:.1f} {ending}"


class BusyHint:
    """Hook of `fit` that reports a busy machine once per run: at the start, or when updates become much slower.

    It checks the load at the start of the run, and when the rate over five seconds falls below half of the best rate.
    Other updates only read the clock.

    Args:
        threads: number of threads of the run; there is no hint for a single one.
        tell: function that receives the line; None = log a warning.
        load: function that returns the load of the machine, or None.
        processors: number of CPU cores that may be used; None = all of this process.
        clock: function that returns the time in seconds.

    >>> lines = []
    >>> hint = BusyHint(threads=2, tell=lines.append, load=lambda: 5.1, processors=2)
    >>> hint.on_step_end(1), lines
    (None, ['the machine is busy (load 5.1 on 2 CPU cores): threads=1 may be much faster'])
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
            # The run has not started to compute: the load is that of other programs.
            self._check(before, others=before)

    def on_step_end(self, step: int) -> None:
        """Count a finished update."""
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
        if rate < _SLOW * self._best:
            found = self._load()
            self._check(found, others=None if found is None else found - self._threads)

    def _check(self, found: float | None, *, others: float | None) -> None:
        if found is None or others is None or others + self._threads < self._processors + _MARGIN:
            return
        self._done = True
        free = max(1, min(self._threads - 1, int(self._processors - others)))
        reason = f"load {found:.1f} on {self._processors} CPU cores"
        self._tell(f"the machine is busy ({reason}): threads={free} may be much faster")
