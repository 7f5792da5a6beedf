"""Metadata of configuration fields that may change when a run is resumed; all other fields may not change.

Code that compares two configurations reads it from the fields (`recipes.changes`): there is no separate list of names.
"""

from typing import Literal, get_args

from attrs import Attribute

Change = Literal["free", "machine", "processes", "length", "data", "unrecorded"]
"""
free: the field cannot change the result.
machine: the result is the same up to rounding.
processes: it may change if an update keeps the number of batches of all processes together.
length: schedules may depend on it; it may change if the schedules do not change up to the current update.
data: it may change if the samples stay the same.
unrecorded: it belongs to one start of the command, not to the run, and is not recorded.
"""
_KEY = "d2v.change"


def may_change(how: Change) -> dict[str, Change]:
    """Return the metadata of a field, for `attrs.field`.

    >>> from attrs import field, fields, frozen
    >>> @frozen
    ... class Settings:
    ...     seed: int = 0
    ...     log_every: int = field(default=50, metadata=may_change("free"))
    >>> [change_of(one) for one in fields(Settings)]
    [None, 'free']
    """
    return {_KEY: how}


def change_of(field: "Attribute[object]") -> Change | None:
    """Return how the value of a field may change; None = not at all."""
    found: Change | None = field.metadata.get(_KEY)
    return found if found in get_args(Change) else None
