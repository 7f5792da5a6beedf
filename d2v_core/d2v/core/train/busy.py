"""Hint for runs on a busy machine, where several threads can be much slower than one."""

import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["BusyHint", "fewer_threads", "load_text", "others_running", "usable_processors"]

_logger = logging.getLogger(__name__)
_WINDOW = 5.0  # seconds over which a rate is measured
_SLOW = 0.5  # fraction of the best rate so far
_SAMPLES, _PAUSE = 9, 0.01  # the threads of this process sleep in the pauses


def usable_processors() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_text() -> str:
    """Return the load average of the last minute as text for a report.

    >>> load_text().endswith((" CPU core", " CPU cores"))
    True
    """
    count = usable_processors()
    ending = f"on {count} CPU core{'s' if count > 1 else ''}"
    try:
        return f"{os.getloadavg()[0]:.1f} {ending}"
    except (AttributeError, OSError):  # not available on Windows
        return f"unknown {ending}"


def others_running() -> int | None:
    """Return how many threads of other programs are running now.

    The load average does not say this: it includes what this process, or the command before it, computed in the last
    minutes.

    Returns:
        None if unknown: the system does not count them (only Linux does), or this process may only use some of the
        cores, so that the others may run elsewhere.
    """
    if usable_processors() < (os.cpu_count() or 1):
        return None
    counts = []
    for _ in range(_SAMPLES):
        time.sleep(_PAUSE)
        try:
            running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
        except (OSError, IndexError, ValueError):
            return None
        if running < 1:  # this thread runs: a sandbox that does not count
            return None
        counts.append(running - 1)
    return statistics.median_low(counts)


def fewer_threads(threads: int, *, others: int | None, processors: int) -> int | None:
    """Return the number of threads that other programs leave free; None = all `threads` have a core, or it is unknown.

    Args:
        threads: that a run would use.
        others: threads of other programs that are running, see `others_running`.
        processors: number of CPU cores.

    >>> fewer_threads(8, others=3, processors=8), fewer_threads(2, others=5, processors=2)
    (5, 1)
    """
    if others is None or threads < 2 or others + threads <= processors:
        return None
    return max(1, min(threads - 1, processors - others))


class BusyHint:
    """Hook of `fit` that reports a busy machine once per run: at the start, or when updates become much slower.

    It counts the running threads at the start of the run, and when the rate over five seconds falls below half of the
    best rate. Other updates only read the clock.

    Args:
        threads: number of threads of the run; there is no hint for a single one.
        tell: function that receives the line; None = log a warning.
        others: function that returns how many threads of other programs are running, or None.
        processors: number of CPU cores that may be used; None = all of this process.
        clock: function that returns the time in seconds.

    >>> lines = []
    >>> hint = BusyHint(threads=2, tell=lines.append, others=lambda: 3, processors=2)
    >>> hint.on_step_end(1), lines
    (None, ['the machine is busy (3 threads of other programs on 2 CPU cores): threads=1 may be much faster'])
    """

    def __init__(
        self,
        threads: int,
        *,
        tell: Callable[[str], object] | None = None,
        others: Callable[[], int | None] = others_running,
        processors: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = threads
        self._tell = _logger.warning if tell is None else tell
        self._others = others
        self._processors = usable_processors() if processors is None else processors
        self._clock = clock
        self._done = threads < 2
        self._since: float | None = None
        self._updates = 0
        self._best = 0.0
        if not self._done:
            self._check()

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
            self._check()

    def _check(self) -> None:
        others = self._others()
        free = fewer_threads(self._threads, others=others, processors=self._processors)
        if others is None or free is None:
            return
        self._done = True
        reason = f"{others} thread{'s' if others > 1 else ''} of other programs on {self._processors} CPU cores"
        self._tell(f"the machine is busy ({reason}): threads={free} may be much faster")
