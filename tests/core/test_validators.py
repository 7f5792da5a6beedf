"""Validators: what each lets pass, and that a refusal names the argument, its value and what is allowed."""

import math
from typing import Any, Literal

import pytest
from attrs import field, frozen
from attrs.validators import ge, optional

from d2v.core.validators import (
    Validator,
    check,
    distinct,
    factor,
    fraction,
    must,
    not_negative,
    one_of,
    positive,
    probability,
)

NUMBERS: list[tuple[Validator, list[float], list[float]]] = [
    (not_negative, [0, 0.5, 1e30], [-1e-9, math.inf, math.nan]),
    (positive, [1e-9, 1, 1e30], [0, -1, math.inf, math.nan]),
    (probability, [0, 0.999], [-0.1, 1, math.inf, math.nan]),
    (fraction, [0, 0.5, 1], [-0.1, 1.1, math.inf, math.nan]),
    (factor, [1e-9, 1], [0, 1.1, math.inf, -math.inf, math.nan]),
]


@pytest.mark.parametrize(("validator", "allowed"), [(one, value) for one, values, _ in NUMBERS for value in values])
def test_numbers_that_pass(validator: Validator, allowed: float) -> None:
    check(validator, rate=allowed)


@pytest.mark.parametrize(("validator", "refused"), [(one, value) for one, _, values in NUMBERS for value in values])
def test_numbers_that_do_not(validator: Validator, refused: float) -> None:
    with pytest.raises(ValueError, match=f"rate.*{refused}"):
        check(validator, rate=refused)


def test_a_condition_in_words() -> None:
    odd = must(lambda number: number % 2, "odd")
    check(odd, kernel=3)
    with pytest.raises(ValueError, match=r"kernel=4.*odd"):
        check(odd, kernel=4)


@pytest.mark.parametrize("choices", [Literal["mean", "grid", 3], ("mean", "grid", 3)])
def test_choices(choices: Any) -> None:
    check(one_of(choices), first="mean", second=3)
    for wrong, message in {"gird": "mean 'grid'", "x": "'mean'", 4: "3", None: "'grid'"}.items():
        with pytest.raises(ValueError, match=f"pooling={wrong!r}.*{message}"):
            check(one_of(choices), pooling=wrong)


def test_nothing_stands_twice() -> None:
    check(distinct, names=("a", "b"), none=())
    with pytest.raises(ValueError, match=r"names.*'b'"):
        check(distinct, names=["a", "b", "c", "b"])


def test_the_first_argument_that_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"second.*0"):
        check(ge(1), first=1, second=0, third=-1)


def test_fields_are_checked_alike() -> None:
    @frozen
    class Rates:
        first: float = field(validator=probability)
        last: float | None = field(default=None, validator=optional(positive))

    assert Rates(0.5) == Rates(0.5, None)
    for wrong, message in (((1.0,), "first.*1.0"), ((0.0, math.inf), "last=inf")):
        with pytest.raises(ValueError, match=message):
            Rates(*wrong)
