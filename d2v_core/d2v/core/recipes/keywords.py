"""Convert the keywords of a Python call to overrides by dotted key.

A keyword is a top-level key (`out`, `seed`), a section (`train={"max_steps": 100}`, `data="photos"`), or the last part
of a key of `train`, `optim` or `data` if it is unambiguous (`max_steps`, `lr`, `num_workers`).
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from d2v.core.files import ConfigError, to_plain
from d2v.core.files.kinds import role_of
from d2v.core.recipes.schema import section_of

# Data come last, so that a modality's field names never change the meaning of a training key.
_SHORT = ("train", "optim", "data")


def short_keys(config: type) -> dict[str, str]:
    """Dotted keys of `train`, `optim` and `data` by their last parts, except those that another section has too.

    Args:
        config: class of the settings.

    >>> from d2v.core.recipes import PretrainRecipe
    >>> short = short_keys(PretrainRecipe)
    >>> short["lr"], short["max_steps"], "decay" in short  # a schedule has a decay too
    ('optim.lr', 'train.max_steps', False)
    """
    topmost = field_types(config)
    sections = {name: section for name, kind in topmost.items() if (section := section_of(kind)) is not None}
    known = {key for name, section in sections.items() if role_of(section) is None for key in _below(name, section)}
    uses = Counter(key.rpartition(".")[2] for key in known)
    found: dict[str, str] = {}
    for section in (name for name in _SHORT if name in sections):
        for form in section_forms(sections[section]):
            for name, kind in field_types(form).items():
                key = f"{section}.{name}"
                alone = name not in topmost and uses[name] == (key in known)
                if alone and section_of(kind) is None and name != needed_by(sections[section]):
                    found.setdefault(name, key)
    return found


def with_keywords(config: type, overrides: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Merge overrides and the keywords of a call into one mapping by dotted key.

    Args:
        config: class of the settings.
        overrides: by dotted key; None = none.
        keywords: top-level keys, short ones (see `short_keys`), and sections as mappings or as configurations.

    Raises:
        ConfigError: if a key is given twice, or a configuration has no kind.

    >>> from d2v.core.recipes import PretrainRecipe
    >>> with_keywords(PretrainRecipe, {"optim.clip": 1.0}, {"data": "photos", "train": {"keep": 1}, "max_steps": 9})
    {'optim.clip': 1.0, 'data.path': 'photos', 'train.keep': 1, 'train.max_steps': 9}
    >>> with_keywords(PretrainRecipe, {"train.max_steps": 9}, {"max_steps": 9})
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: train.max_steps is given twice, once as max_steps=; leave one out
    """
    result = {key: _text(value) for key, value in (overrides or {}).items()}
    topmost, short = field_types(config), short_keys(config)
    for name, value in keywords.items():
        key = short.get(name, name)
        for dotted, one in _spread(topmost.get(key), key, value):
            if any(_same_place(other.lstrip("+"), dotted) for other in result):
                raise ConfigError(f"{dotted} is given twice, once as {name}=; leave one out")
            result[dotted] = one
    return result


def field_types(config: Any) -> dict[str, Any]:
    """The types of the fields of a configuration class, by name."""
    return {one.name: one.type for one in attrs.fields(attrs.resolve_types(config))}


def section_forms(section: Any) -> list[type]:
    """The classes that can fill a section: for a role, one for each of its kinds."""
    role = role_of(section)
    return [section] if role is None else list(dict.fromkeys(role.find(name) for name in role.names()))


def _below(name: str, section: Any) -> Iterator[str]:
    """The dotted keys of core's own classes in a section."""
    role = role_of(section)
    for form in [section] if role is None else role.own.values():
        for inner, kind in field_types(form).items():
            below = section_of(kind)
            yield from [f"{name}.{inner}"] if below is None else _below(f"{name}.{inner}", below)


def _spread(declared: Any, key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value by dotted key. A section is split into its keys, so that its other keys keep their values."""
    section = None if declared is None else section_of(declared)
    if attrs.has(type(value)) and not isinstance(value, type):
        value = to_plain(value, declared)
    if section is None:
        yield key, _text(value)
    elif isinstance(value, Mapping) and value:
        inner = _fields_for(section, value)
        for name, one in value.items():
            yield from _spread(inner.get(name), f"{key}.{name}", one)
    elif isinstance(text := _text(value), str) and (only := needed_by(section)):
        yield f"{key}.{only}", text
    else:
        yield key, value


def _fields_for(section: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The types of the fields of a mapping for a section; empty if its kind is not given."""
    role = role_of(section)
    if role is None:
        return field_types(section)
    kind = values.get("kind", role.default)
    if isinstance(kind, str):
        return field_types(role.find(kind))
    # By modality: one mapping for each.
    return {name: section for name, one in values.items() if isinstance(one, Mapping) or attrs.has(type(one))}


def needed_by(section: Any) -> str | None:
    """The one property in the contract of a section, which a plain text sets: the path of data."""
    names = [name for name, value in vars(section).items() if isinstance(value, property)]
    return names[0] if role_of(section) is not None and len(names) == 1 else None


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _same_place(key: str, other: str) -> bool:
    """Whether two keys are the same, or one is in a section that the other sets as a whole."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
