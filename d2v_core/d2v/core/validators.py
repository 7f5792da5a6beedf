"""What a value may be: validators in the form of attrs, for the fields of classes and for the arguments of pieces.

Bounds and lengths are attrs' own (`attrs.validators`). Here is what attrs lacks: conditions in words, choices that name
the nearest one, finite numbers. Every message holds the name, the value and what is allowed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

from attrs import Attribute
from attrs.validators import and_, ge, gt, le, lt

from d2v.core.suggestions import nearest

Validator = Callable[[Any, "Attribute[Any]", Any], Any]


def must(holds: Callable[[Any], bool], what: str) -> Validator:
    """A validator made of a condition and of words for it.

    Args:
        holds: whether a value is allowed.
        what: what it must be.

    >>> check(must(lambda length: length % 2, "odd"), kernel=4)
    Traceback (most recent call last):
    ValueError: kernel=4 must be odd
    """

    def refuse(_: Any, attribute: "Attribute[Any]", value: Any) -> None:
        if not holds(value):
            raise ValueError(f"{attribute.name}={value!r} must be {what}")

    return refuse


def one_of(choices: Any) -> Validator:
    """A validator of choices; the message names the one that may be meant.

    Args:
        choices: a `Literal`, or all of them.

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
    """A validator of sequences: nothing stands twice.

    >>> check(distinct, names=("cat", "dog", "cat"))
    Traceback (most recent call last):
    ValueError: names holds 'cat' more than once; all must be different
    """
    if len(set(values)) < len(values):
        twice = next(value for place, value in enumerate(values) if value in values[:place])
        raise ValueError(f"{attribute.name} holds {twice!r} more than once; all must be different")


not_negative: Validator = must(lambda number: 0 <= number < math.inf, "a finite number, at least 0")
"""A finite number, at least 0."""
positive: Validator = must(lambda number: 0 < number < math.inf, "a finite number above 0")
"""A finite number above 0."""
probability: Validator = and_(ge(0), lt(1))
"""In [0, 1), as of dropping something: not all of it."""
fraction: Validator = and_(ge(0), le(1))
"""In [0, 1]."""
factor: Validator = and_(gt(0), le(1))
"""In (0, 1]: it makes something smaller, or leaves it."""


class _Argument(NamedTuple):
    """All that a validator reads of an attribute."""

    name: str


def check(validator: Validator, /, **arguments: Any) -> None:
    """Apply a validator to arguments, as attrs applies it to fields.

    Args:
        validator: ours, or one of `attrs.validators`.
        arguments: values by name.

    Raises:
        ValueError: naming the argument, its value and what is allowed.

    >>> check(probability, dropout=0.1, layer_drop=1.0)
    Traceback (most recent call last):
    ValueError: 'layer_drop' must be < 1: 1.0
    """
    for name, value in arguments.items():
        validator(None, _Argument(name), value)  # type: ignore[arg-type]  # in place of an Attribute
