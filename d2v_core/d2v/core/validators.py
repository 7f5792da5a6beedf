"""Validators in the format of attrs, for fields of classes and for arguments of functions.

Bounds and lengths are in `attrs.validators`. This module adds conditions with a description, choices that suggest the
nearest one, and finite numbers. Every message contains the name, the value and the allowed values.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

from attrs import Attribute
from attrs.validators import and_, ge, gt, le, lt

from d2v.core.suggestions import nearest

Validator = Callable[[Any, "Attribute[Any]", Any], Any]


def must(holds: Callable[[Any], bool], what: str) -> Validator:
    """Return a validator for a condition.

    Args:
        holds: function that returns whether a value is allowed.
        what: description of the allowed values.

    >>> check(must(lambda length: length % 2, "odd"), kernel=4)
    Traceback (most recent call last):
    ValueError: kernel=4 must be odd
    """

    def refuse(_: Any, attribute: "Attribute[Any]", value: Any) -> None:
        if not holds(value):
            raise ValueError(f"{attribute.name}={value!r} must be {what}")

    return refuse


def one_of(choices: Any) -> Validator:
    """Return a validator for a set of choices; the message suggests the nearest one.

    Args:
        choices: a `Literal`, or a collection of all choices.

    >>> from typing import Literal
    >>> check(one_of(Literal["mean", "grid"]), pooling="gird")
    Traceback (most recent call last):
    ValueError: pooling='gird' must be 'mean' or 'grid'; did you mean 'grid'?
    """
    known = get_args(choices) or tuple(choices)

    def refuse(_: Any, attribute: "Attribute[Any]", value: Any) -> None:
        if value not in known:
            hint = nearest(value, map(str, known)) if isinstance(value, str) else ""
            raise ValueError(f"{attribute.name}={value!r} must be {' or '.join(map(repr, known))}{hint}")

    return refuse


def distinct(_: Any, attribute: "Attribute[Any]", values: Sequence[Any]) -> None:
    """Validate that a sequence has no duplicates.

    >>> check(distinct, names=("cat", "dog", "cat"))
    Traceback (most recent call last):
    ValueError: names holds 'cat' more than once; all must be different
    """
    if len(set(values)) < len(values):
        twice = next(value for index, value in enumerate(values) if value in values[:index])
        raise ValueError(f"{attribute.name} holds {twice!r} more than once; all must be different")


not_negative: Validator = must(lambda number: 0 <= number < math.inf, "a finite number, at least 0")
"""A finite number, at least 0."""
positive: Validator = must(lambda number: 0 < number < math.inf, "a finite number above 0")
"""A finite number above 0."""
probability: Validator = and_(ge(0), lt(1))
"""In [0, 1), for example a dropout rate."""
fraction: Validator = and_(ge(0), le(1))
"""In [0, 1]."""
factor: Validator = and_(gt(0), le(1))
"""In (0, 1]: a factor that reduces a value or leaves it unchanged."""


class _Argument(NamedTuple):
    """The part of an `Attribute` that validators use."""

    name: str


def check(validator: Validator, /, **arguments: Any) -> None:
    """Apply a validator to arguments, as attrs applies it to fields.

    Args:
        validator: a validator of this module or of `attrs.validators`.
        arguments: values by name.

    Raises:
        ValueError: naming the argument, its value and what is allowed.

    >>> check(probability, dropout=0.1, layer_drop=1.0)
    Traceback (most recent call last):
    ValueError: 'layer_drop' must be < 1: 1.0
    """
    for name, value in arguments.items():
        validator(None, _Argument(name), value)  # type: ignore[arg-type]  # in place of an Attribute
