"""All keys of a command, for hints and completion, for any data and model."""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from d2v.core.files import ConfigError
from d2v.core.files.kinds import role_of
from d2v.core.recipes.lookup import recipe_values
from d2v.core.recipes.schema import Key, keys, section_of
from d2v.core.registry import PluginError, UnknownNameError


def known_keys(settings: type, recipe: str | None = None) -> list[Key]:
    """The keys of a command, without sections.

    Args:
        settings: class of its settings, used if there is no recipe.
        recipe: name of a recipe or path of a file; an unreadable one is ignored.

    >>> from d2v.core.recipes import PretrainRecipe
    >>> [key.name for key in known_keys(PretrainRecipe, "vision/small")][:3]
    ['out', 'seed', 'resume']
    """
    found: dict[str, Key] = {}
    for config, values in _forms(settings, recipe):
        for key in keys(config, values):
            if not key.section:
                found.setdefault(key.name, key)
    return list(found.values())


def _forms(settings: type, recipe: str | None) -> Iterator[tuple[type, Mapping[str, Any]]]:
    if recipe is not None:
        try:
            yield recipe_values(recipe)
            return
        except (ConfigError, PluginError, UnknownNameError):
            pass
    # Without a recipe, the kind of a section depends on the model: include all installed kinds.
    yield settings, {}
    for one in attrs.fields(attrs.resolve_types(settings)):
        role = role_of(section_of(one.type))
        if role is not None and role.part is not None:
            for kind in role.names():
                yield settings, {one.name: {"kind": kind}}
