"""Several values of numbers: one mapping of overrides for each combination."""

from collections.abc import Mapping
from itertools import product
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from d2v.core.recipes.overrides import merged
from d2v.core.recipes.schema import type_of
from d2v.core.recipes.typed import Typed


def alternatives(
    config: type, values: Mapping[str, Any], overrides: Mapping[str, Any], *, below: str
) -> dict[str, list[Any]]:
    """The numbers that are given as lists, each with its values.

    Args:
        config: class of the settings.
        values: plain values before the overrides.
        overrides: by dotted key; a list is `[1, 2]` or, as typed on the command line, `[1,2]` or `1,2`.
        below: the section whose keys count.

    Raises:
        ConfigError: if another key does not exist.

    >>> from d2v.core.recipes import FinetuneRecipe
    >>> given = {"optim.lr": Typed("1e-3,1e-4"), "optim.clip": 1.0, "seed": Typed("1,2")}
    >>> alternatives(FinetuneRecipe, {}, given, below="optim")
    {'optim.lr': ['1e-3', '1e-4']}
    """
    lists = {key: several for key, value in overrides.items() if (several := _several(key, value, below))}
    if not lists:
        return {}
    rest = {key: value for key, value in overrides.items() if key not in lists and key.partition(".")[0] == below}
    whole = merged(config, values, rest)
    return {key: several for key, several in lists.items() if _is_number(type_of(config, whole, key))}


def combinations(choices: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations of values by key; the last key changes fastest.

    >>> combinations({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _several(key: str, value: Any, below: str) -> list[Any]:
    """The items of a list below a section; empty for another value."""
    if not key.startswith(f"{below}."):
        return []
    if isinstance(value, Typed):
        items = value.removeprefix("[").removesuffix("]").split(",")
        return [Typed(item.strip()) for item in items] if "," in value or value.startswith("[") else []
    return list(value) if isinstance(value, list | tuple) else []


def _is_number(declared: Any) -> bool:
    parts = set(get_args(declared)) if get_origin(declared) in (Union, UnionType) else {declared}
    return bool(parts - {NoneType}) and parts <= {int, float, NoneType}
