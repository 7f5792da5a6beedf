"""Durations: a number of updates, or a fraction of the run.

Learning-rate and EMA schedules are written once and then run for a hundred steps or for a million. A whole number is
therefore a count, a float is a fraction of the run, and this is the one place that tells them apart.
"""

from typing import TypeAlias

Duration: TypeAlias = int | float
"""Updates (an int) or a fraction of the run (a float)."""


def updates(duration: Duration, total: int | None = None, *, name: str = "duration") -> int:
    """Number of updates that a duration stands for.

    A fraction is rounded down, int(total * fraction), as the published tri-stage schedule does it.

    Args:
        duration: updates (an int, at least 0) or a fraction of the run (a float in [0, 1]).
        total: updates of the run; only fractions need it.
        name: what the caller calls the duration, for messages.

    Raises:
        ValueError: if the duration is negative, a fraction above 1, or a fraction without `total`.
        TypeError: if the duration is no number.

    >>> updates(500), updates(0.25, 1000)
    (500, 250)
    """
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        raise TypeError(f"{name}={duration!r} is neither a number of updates (int) nor a fraction of the run (float)")
    if isinstance(duration, int):
        if duration < 0:
            raise ValueError(f"{name}={duration} is negative; give a number of updates or a fraction of the run")
        return duration
    if not 0 <= duration <= 1:
        hint = f"; write {int(duration)} for updates" if duration.is_integer() and duration > 1 else ""
        raise ValueError(f"{name}={duration} is not a fraction of the run: a float must lie in [0, 1]{hint}")
    if total is None:
        raise ValueError(f"{name}={duration} is a fraction of the run, so total (the updates of the run) is needed")
    return int(total * duration)


def check_update(n: int, *, first: int = 0) -> None:
    """Refuse a number that counts no update.

    Args:
        n: what a schedule is asked for.
        first: smallest n that there is.

    Raises:
        ValueError: if n is below it.

    >>> check_update(-1)
    Traceback (most recent call last):
    ValueError: n=-1 must be at least 0: it counts finished updates
    """
    if n < first:
        raise ValueError(f"n={n} must be at least {first}: it counts finished updates")
