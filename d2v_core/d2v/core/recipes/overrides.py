"""Apply `key=value` overrides to a recipe."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from d2v.core.files import ConfigError
from d2v.core.files.kinds import role_of
from d2v.core.files.structure import is_by_modality
from d2v.core.recipes.hints import unknown_key
from d2v.core.recipes.schema import keys, section_of, type_of
from d2v.core.recipes.typed import Typed, is_name, read_typed


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Parse arguments of the form `key=value` to a mapping; `read_typed` parses the values by the type of the key.

    Raises:
        ConfigError: if an argument has another form, or a key is given twice.

    >>> parse_overrides(["optim.lr=1e-3", "out=run"])
    {'optim.lr': '1e-3', 'out': 'run'}
    """
    given = list(arguments)
    found: dict[str, Any] = {}
    for position, argument in enumerate(given):
        key, equals, text = argument.partition("=")
        if not equals or not key.strip("+ ") or key != key.strip():
            raise ConfigError(_form(given, position))
        if key in found:
            raise ConfigError(f"{key} is given twice: {key}={found[key]} and {argument}")
        found[key] = Typed(text)
    return found


def _form(given: list[str], position: int) -> str:
    """The message for an argument that is not of the form `key=value`."""
    argument = given[position]
    key, equals, text = argument.partition("=")
    before = ([*given[max(position - 1, 0) : position]] or [""])[0]
    after = [*given[position + 1 : position + 3], "", ""]
    whole = ""
    if equals and key.strip():  # 'lr = 3' in quotes
        whole = f"{key.strip()}={text.strip()}"
    elif not equals and after[0].startswith("="):  # lr = 3, lr =3
        whole = f"{argument}={after[0][1:] or after[1]}"
    elif not equals and before.endswith("="):  # lr= 3
        whole = f"{before}{argument}"
    if whole:
        return f"{argument!r} is not of the form key=value; write {whole}, without spaces around ="
    name = argument.lstrip("-")
    return f"{argument!r} is not of the form key=value" + (f"; write {name}=VALUE" if name and not equals else "")


def plain_keys(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Overrides without the `+` that the original toolkit needs before new keys, and hints about it.

    >>> plain_keys({"+optim.lr": 0.1})
    ({'optim.lr': 0.1}, ['+optim.lr: no + is needed, write optim.lr=...'])
    """
    hints = [f"{key}: no + is needed, write {key.lstrip('+')}=..." for key in overrides if key.startswith("+")]
    return {key.lstrip("+"): value for key, value in overrides.items()}, hints


def merged(config: Any, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with overrides applied.

    A new `kind` clears its section, since the keys of the former kind do not apply to it.

    Args:
        config: class of the values.
        values: plain values; not changed.
        overrides: by dotted key.

    Raises:
        ConfigError: naming each key that does not exist, with the nearest one that exists.
    """
    result = copy.deepcopy(dict(values))
    # Set a section before the keys in it, and its kind first, since the kind determines the keys.
    ordered = sorted(overrides.items(), key=lambda item: (item[0].count("."), not item[0].endswith(".kind")))
    for given, value in ordered:
        key, declared = given, type_of(config, result, given)
        if section_of(declared) is not None and is_name(value):
            key = _path_key(result, given, declared, value)
            if key in overrides:
                raise ConfigError(f"{given}={value} means {key}={value}, and {key}={overrides[key]} is given as well")
            declared = type_of(config, result, key)
        _put(result, key, read_typed(value, declared, key=key) if isinstance(value, Typed) else copy.deepcopy(value))
    known = [one.name for one in keys(config, result)]
    mistakes = [unknown_key(key, known) for key in overrides if key not in known]
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    return result


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    level = values
    for depth, section in enumerate(sections):
        inner = level.get(section)
        if inner is None:
            inner = level[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"unknown key {key!r}: {'.'.join(sections[: depth + 1])} is one value, not a section")
        level = inner
    if last == "kind" and level.get("kind") != value:
        level.clear()
    level[last] = value


def _path_key(values: Mapping[str, Any], section: str, declared: Any, value: object) -> str:
    """The key that a path given for a section sets: the path of its data."""
    within: Any = values
    for name in section.split("."):
        within = within.get(name) if isinstance(within, Mapping) else None
    if hasattr(section_of(declared), "path"):
        if not is_by_modality(declared, within):
            return f"{section}.path"
        names = " and ".join(f"{section}.{name}=..." for name in within)
        raise ConfigError(f"{section}={value}: this recipe takes several modalities; give {names}")
    kind = f"; did you mean {section}.kind={value}?" if role_of(section_of(declared)) is not None else ""
    raise ConfigError(f"{section}={value}: {section} is a section of keys, {section}.KEY=VALUE{kind}")
