"""What of a configuration may change when a run is resumed, said at each field; everything else may not.

Whoever compares two configurations reads it from the fields (`recipes.changes`): there is no list of names anywhere.
"""

from typing import Literal, get_args

from attrs import Attribute

Change = Literal["free", "machine", "length", "data", "unrecorded"]
"""
free: it cannot change the result.
machine: the result is the same up to rounding.
length: schedules may depend on it; it may change where they do not change up to the present update.
data: it may change where it leads to the same samples.
unrecorded: it belongs to one start of the command, not to the run, and is not written down.
"""
_KEY = "d2v.change"


def may_change(how: Change) -> dict[str, Change]:
    """Metadata of a field, for `attrs.field`.

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
    """How the value of a field may change; None = not at all."""
    found: Change | None = field.metadata.get(_KEY)
    return found if found in get_args(Change) else None
