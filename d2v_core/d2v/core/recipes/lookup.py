"""Where recipes are found: YAML files in the packages, and the user's own files.

A recipe may extend another one (`extends: audio/ctc`) and then contains only what differs.
"""

import logging
from collections.abc import Callable, Mapping
from functools import reduce
from importlib.resources import files
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

from d2v.core.files import ConfigError, from_plain, to_plain
from d2v.core.files.structure import mistakes
from d2v.core.modality import modalities
from d2v.core.paths import is_path
from d2v.core.recipes.lengths import follow_length
from d2v.core.recipes.overrides import merged, plain_keys
from d2v.core.recipes.printing import as_yaml
from d2v.core.recipes.recipe import FinetuneRecipe, PretrainRecipe, Run
from d2v.core.recipes.schema import REQUIRED, keys
from d2v.core.recipes.yaml_text import read_yaml
from d2v.core.registry import UnknownNameError
from d2v.core.suggestions import nearest

_logger = logging.getLogger(__name__)
_Run = TypeVar("_Run", bound=Run)
_ENDING = ".yaml"
_PLACEHOLDER = "???"
_BASE = "extends"


def recipe_names() -> list[str]:
    """All recipes that are installed, `<modality>/<name>`, sorted.

    >>> "vision/base" in recipe_names()
    True
    """
    return sorted(f"{modality}/{name}" for modality in modalities.names() for name in _installed(modality))


def recipe_text(name: str) -> str:
    """The YAML of a recipe, by its name or the path of a file that ends in .yaml.

    Raises:
        UnknownNameError: if there is none; with the nearest name.
        PluginError: if its modality cannot be loaded.
        ConfigError: if the file cannot be read.
    """
    if name.endswith((_ENDING, ".yml")):
        try:
            return Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe {name} cannot be read: {error}") from error
    modality, _, own = name.partition("/")
    modalities.refuse_broken(modality)
    installed = _installed(modality) if modality in modalities.names() else {}
    if own not in installed:
        known = recipe_names()
        raise UnknownNameError(f"unknown recipe {name!r} (known: {', '.join(known)}){nearest(name, known)}")
    return installed[own]


def recipe_values(
    name: str, overrides: Mapping[str, Any] | None = None, kind: type[Run] | None = None
) -> tuple[type[Run], dict[str, Any]]:
    """The class of a recipe, and its plain values with overrides applied; required values may still be missing.

    Args:
        name: of the recipe, or path of a YAML file.
        overrides: by dotted key.
        kind: required class of the recipe; None = any.

    Raises:
        UnknownNameError: if there is no such recipe.
        ConfigError: if it is for another command, or a key does not exist.
    """
    found, values = _opened(name, kind)
    return found, _completed(found, values, overrides or {})


def checked_values(
    name: str, overrides: Mapping[str, Any] | None = None
) -> tuple[type[Run], dict[str, Any], Run | None]:
    """Like `recipe_values`, with all checks that are possible before the missing values are set.

    Returns:
        The class, the plain values, and the recipe built from them with a placeholder for each missing path; None if
        other values are missing too.

    Raises:
        UnknownNameError: if there is no such recipe.
        ConfigError: naming every key that is unknown or wrong.
    """
    kind, values = recipe_values(name, overrides)
    missing = [key for key in keys(kind, values) if key.value is REQUIRED and not key.section]
    whole = merged(kind, values, {key.name: _PLACEHOLDER for key in missing if is_path(key.type)})
    if wrong := mistakes(whole, kind):
        raise ConfigError("; ".join(wrong))
    return kind, values, from_plain(whole, kind) if all(is_path(key.type) for key in missing) else None


def recipe_value(name: str, overrides: Mapping[str, Any], kind: type[Run], key: str) -> Any:
    """One plain value of a recipe; None = it is missing. Hints and changes are left to `read_recipe`, which logs them.

    Args:
        name: of the recipe, or path of a YAML file.
        overrides: by dotted key.
        kind: required class of the recipe.
        key: topmost key.

    Raises:
        UnknownNameError: if there is no such recipe.
        ConfigError: if it is for another command, or a key of the overrides does not exist.
    """
    found, values = _opened(name, kind)
    return merged(found, values, plain_keys(overrides)[0]).get(key)


def read_recipe(
    name: str,
    overrides: Mapping[str, Any] | None,
    kind: type[_Run],
    *,
    complete: Callable[[dict[str, Any]], None] = lambda values: None,
) -> _Run:
    """A recipe with overrides applied.

    Args:
        name: of the recipe, or path of a YAML file.
        overrides: by dotted key.
        kind: required class of the recipe.
        complete: adds values to the plain values in place.

    Raises:
        UnknownNameError: if there is no such recipe.
        ConfigError: if it is for another command, or naming every key that is unknown, missing or wrong.
    """
    _, values = _opened(name, kind)
    completed = _completed(kind, values, overrides or {})
    complete(completed)
    return from_plain(completed, kind)


def resolve(kind: type, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a configuration class with overrides applied; a `+` before a key is accepted with a hint."""
    plain, hints = plain_keys(overrides)
    for hint in hints:
        _logger.warning("%s", hint)
    return merged(kind, values, plain)


def resolved_text(config: Any) -> str:
    """A configuration as the text of `config.yaml`, which is itself a recipe.

    Settings of a single start of the command are left out: run folder, device, threads and resume.
    """
    return _recorded(type(config), to_plain(config))


def _recorded(kind: type[Any], values: dict[str, Any]) -> str:
    unrecorded = {key.name for key in keys(kind, {}) if key.change == "unrecorded"}
    values = {key: value for key, value in values.items() if key not in unrecorded}
    lines = as_yaml(kind, values, comments=False).splitlines(keepends=True)
    return "".join(line for line in lines if line.split(":")[0] not in unrecorded)


def shared_text(config: PretrainRecipe | FinetuneRecipe) -> str:
    """The same without paths, which mean nothing on another machine: the recipe that is passed on with a model."""
    values = to_plain(config)
    for key in list(keys(type(config), values)):
        if is_path(key.type):
            *sections, name = key.name.split(".")
            del reduce(getitem, sections, values)[name]
    return _recorded(type(config), values)


def _installed(modality: str) -> dict[str, str]:
    """Texts of a modality's recipes by name; empty if its record cannot be loaded."""
    if modality in modalities.broken():
        return {}
    package = modalities.load(modality).recipes
    if package is None:
        return {}
    return {
        path.name.removesuffix(_ENDING): path.read_text()
        for path in files(package).iterdir()
        if path.name.endswith(_ENDING)
    }


def _opened(name: str, kind: type[Run] | None) -> tuple[type[Run], dict[str, Any]]:
    values = _read(name)
    found = FinetuneRecipe if "task" in values else PretrainRecipe
    if kind is not None and found is not kind:
        raise ConfigError(f"{name} is a recipe for `d2v {found.command}`, not for `d2v {kind.command}`")
    return found, values


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Plain values of a recipe, on top of those of the recipe that it extends.

    Args:
        name: of the recipe, or path of a YAML file.
        above: recipes that extend this one.
    """
    values = read_yaml(recipe_text(name), name=name)
    if not isinstance(values, dict):
        raise ConfigError(f"{name} is not a recipe: it is not a mapping of keys")
    base = values.pop(_BASE, None)
    if base is None:
        return values
    if not isinstance(base, str) or base in (*above, name):
        raise ConfigError(f"{name}: {_BASE}: {base} must be the name of another recipe, or the path of its file")
    return _on_top(_read(base, (*above, name)), values)


def _on_top(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged key by key; one of another `kind` replaces that of the base."""
    result = dict(base)
    for key, value in values.items():
        below = base.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and value.get("kind") in (None, below.get("kind")):
            result[key] = _on_top(below, value)
        else:
            result[key] = value
    return result


def _completed(kind: type[Run], values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    resolved = resolve(kind, values, overrides)
    follow_length(kind, values, resolved, plain_keys(overrides)[0])
    kind.complete(resolved)
    return resolved
