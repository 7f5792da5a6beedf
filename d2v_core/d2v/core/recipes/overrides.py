"""`key=value` on top of a recipe."""

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
    """Arguments of the form `key=value` as a mapping; what a value means depends on its key, see `read_typed`.

    Raises:
        ConfigError: if one has another form, or a key is given twice.

    >>> parse_overrides(["optim.lr=1e-3", "out=run"])
    {'optim.lr': '1e-3', 'out': 'run'}
    """
    given = list(arguments)
    found: dict[str, Any] = {}
    for place, argument in enumerate(given):
        key, equals, text = argument.partition("=")
        if not equals or not key.strip("+ ") or key != key.strip():
            raise ConfigError(_form(given, place))
        if key in found:
            raise ConfigError(f"{key} is given twice: {key}={found[key]} and {argument}")
        found[key] = Typed(text)
    return found


def _form(given: list[str], place: int) -> str:
    """What is said of an argument that is no `key=value`."""
    argument = given[place]
    key, equals, text = argument.partition("=")
    before, after = ([*given[max(place - 1, 0) : place]] or [""])[0], [*given[place + 1 : place + 3], "", ""]
    whole = ""
    if equals and key.strip():  # 'lr = 3' in quotes
        whole = f"{key.strip()}={text.strip()}"
    elif not equals and after[0].startswith("="):  # lr = 3, lr =3
        whole = f"{argument}={after[0][1:] or after[1]}"
    elif not equals and before.endswith("="):  # lr= 3
        whole = f"{before}{argument}"
    if whole:
        return f"{argument!r} is not of the form key=value; write {whole}, without blanks around ="
    name = argument.lstrip("-")
    return f"{argument!r} is not of the form key=value" + (f"; write {name}=VALUE" if name and not equals else "")


def plain_keys(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Overrides without the `+` that the original wants before new keys, and hints about it.

    >>> plain_keys({"+optim.lr": 0.1})
    ({'optim.lr': 0.1}, ['+optim.lr: no + is needed here, optim.lr=... does'])
    """
    hints = [f"{key}: no + is needed here, {key.lstrip('+')}=... does" for key in overrides if key.startswith("+")]
    return {key.lstrip("+"): value for key, value in overrides.items()}, hints


def merged(config: Any, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with overrides put in.

    A new `kind` starts its section afresh: what the former kind had means nothing to it.

    Args:
        config: class that the values are for.
        values: plain; left alone.
        overrides: by dotted key.

    Raises:
        ConfigError: naming each key that does not exist, with the nearest one that does.
    """
    result = copy.deepcopy(dict(values))
    # A section as a whole before the keys in it, and its kind first of these: it says which keys there are.
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
    place = values
    for depth, section in enumerate(sections):
        inner = place.get(section)
        if inner is None:
            inner = place[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"unknown key {key!r}: {'.'.join(sections[: depth + 1])} is one value, not a section")
        place = inner
    if last == "kind" and place.get("kind") != value:
        place.clear()
    place[last] = value


def _path_key(values: Mapping[str, Any], section: str, declared: Any, value: object) -> str:
    """The key that the name of a section means: where its data are."""
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
