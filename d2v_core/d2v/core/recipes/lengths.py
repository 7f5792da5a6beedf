"""Scale a recipe to a longer or shorter run: durations in updates follow `train.max_steps`.

Published recipes give warm-up and annealing in updates, for runs of hundreds of thousands. A run of another length
needs schedules of the same shape, so these durations are scaled too unless they are set explicitly.
"""

import logging
from collections.abc import Mapping
from typing import Any

from d2v.core.durations import Duration
from d2v.core.recipes.schema import keys

_logger = logging.getLogger(__name__)
_LENGTH = "train.max_steps"


def follow_length(
    config: type, recipe: Mapping[str, Any], resolved: dict[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Scale durations in updates if an override sets another length, and log each change.

    Fractions of the run need no scaling, and durations set by an override are kept. If a recipe file sets the length
    itself, its durations are kept too.

    Args:
        config: class of the values.
        recipe: plain values before the overrides.
        resolved: plain values with overrides, changed in place.
        overrides: by dotted key.
    """
    before, after = _at(recipe, _LENGTH), _at(resolved, _LENGTH)
    if not (_is_count(before) and _is_count(after)) or before == after:
        return  # wrong types are reported when the classes are filled
    changed: dict[str, int] = {}
    for key in keys(config, resolved):
        if key.type == Duration and _is_count(key.value) and not _given(key.name, overrides):
            changed[key.name] = key.value * after // before
    for name, value in changed.items():
        section, _, last = name.rpartition(".")
        _at(resolved, section)[last] = value
    if changed:
        listed = ", ".join(f"{name}={value}" for name, value in changed.items())
        _logger.warning("%s=%s instead of %s: %s, in proportion", _LENGTH, after, before, listed)


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _given(name: str, overrides: Mapping[str, Any]) -> bool:
    """Whether the key, or a section that contains it, is set."""
    return any(name == key or name.startswith(f"{key}.") for key in overrides)
