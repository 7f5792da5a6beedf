"""Durations: a number of updates, or a fraction of the run.

The same learning-rate and EMA schedules are used for runs of a hundred or a million updates. An int is therefore a
number of updates and a float is a fraction of the run; this module converts both to updates.
"""

from typing import TypeAlias

Duration: TypeAlias = int | float
"""Updates (an int) or a fraction of the run (a float)."""


def updates(duration: Duration, total: int | None = None, *, name: str = "duration") -> int:
    """Convert a duration to a number of updates.

    A fraction is rounded down, int(total * fraction), as in the published tri-stage schedule.

    Args:
        duration: updates (an int, at least 0) or a fraction of the run (a float in [0, 1]).
        total: number of updates of the run; only needed for fractions.
        name: name of the duration, for error messages.

    Raises:
        ValueError: if the duration is negative, a fraction above 1, or a fraction without `total`.
        TypeError: if the duration is not a number.

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
        raise ValueError(f"{name}={duration} is not a fraction of the run: a float must be in [0, 1]{hint}")
    if total is None:
        raise ValueError(f"{name}={duration} is a fraction of the run and needs total, the number of updates")
    return int(total * duration)


def check_update(n: int, *, first: int = 0) -> None:
    """Refuse an invalid number of updates.

    Args:
        n: argument of a schedule.
        first: smallest valid n.

    Raises:
        ValueError: if n is below `first`.

    >>> check_update(-1)
    Traceback (most recent call last):
    ValueError: n=-1 must be at least 0: it counts finished updates
    """
    if n < first:
        raise ValueError(f"n={n} must be at least {first}: it counts finished updates")
