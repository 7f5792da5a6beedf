"""The keys of a configuration class: dotted names, values and descriptions.

Each key is described once, in the docstring of its class. This module reads the docstrings for printed recipes, help
texts and the check of overrides.
"""

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from attrs import frozen

from d2v.core.changes import Change, change_of
from d2v.core.files import ConfigError, to_plain
from d2v.core.files.kinds import role_of
from d2v.core.files.structure import is_by_modality

REQUIRED = object()
"""Placeholder for a value that the user must set."""


@frozen
class Key:
    """One line of a configuration.

    Args:
        name: dotted name.
        value: plain value; `REQUIRED` = not set yet.
        comment: description, one sentence.
        section: whether it is a section, which has keys but no value.
        change: how it may change when a run is resumed; None = not at all.
        type: type of the field.
    """

    name: str
    value: Any
    comment: str = ""
    section: bool = False
    change: Change | None = None
    type: Any = None


def keys(config: Any, values: Mapping[str, Any], *, below: str = "") -> Iterator[Key]:
    """All keys of a configuration class, in order, with the given values or defaults.

    Args:
        config: a class with fields, or a type with several kinds.
        values: plain values, possibly incomplete.
        below: dotted name of the section that contains the keys.

    >>> from d2v.core import EMASchedule
    >>> for key in keys(EMASchedule, {"anneal": 100}): print(key.name, key.value is REQUIRED or key.value)
    start True
    end None
    anneal 100
    total None
    first 1
    """
    dot = f"{below}." if below else ""
    role = role_of(config)
    if role is not None:
        kind = values.get("kind", REQUIRED if role.default is None else role.default)
        names = role.names()
        yield Key(f"{dot}kind", kind, "one of " + ", ".join(names), type=Literal[tuple(names)] if names else str)
        try:
            config = role.find(None if kind is REQUIRED else kind)
        except ConfigError:  # reported when the classes are filled
            return
    comments = descriptions(config)
    for one in attrs.fields(attrs.resolve_types(config)):
        value = values.get(one.name, REQUIRED)
        if value is REQUIRED:
            value = _default(one)
        yield from _key(one.type, f"{dot}{one.name}", value, comments.get(one.name, ""), change_of(one))


def outline(config: type) -> Iterator[Key]:
    """Top-level keys of a configuration class with their defaults, for help texts; a section is one key, `data.*`.

    The property in the contract of a section (the `path` of data) is a required key of every kind of that section.
    >>> from d2v.core.jobs.extraction import ExtractSettings
    >>> [key.name for key in outline(ExtractSettings)][:4]
    ['model', 'weights', 'data.path', 'data.*']
    """
    comments = descriptions(config)
    for one in attrs.fields(attrs.resolve_types(config)):
        comment, section = comments.get(one.name, ""), section_of(one.type)
        if section is None:
            yield Key(one.name, _default(one), comment, type=one.type)
            continue
        needed = vars(section).items() if role_of(section) is not None else ()
        for name, contract in needed:
            if isinstance(contract, property):
                meaning = (inspect.getdoc(contract) or "").rstrip(".")
                yield Key(f"{one.name}.{name}", REQUIRED, f"{meaning[:1].lower()}{meaning[1:]}")
        yield Key(f"{one.name}.*", None, comment, section=True)


def type_of(config: Any, values: Mapping[str, Any], name: str) -> Any:
    """The type of the field of a dotted key; None if the key does not exist.

    Args:
        config: as for `keys`.
        values: plain values; they determine the kind of each section.
        name: dotted key.

    >>> from d2v.core import EMASchedule
    >>> type_of(EMASchedule, {}, "start"), type_of(EMASchedule, {}, "begin")
    (<class 'float'>, None)
    """
    first, _, rest = name.partition(".")
    role = role_of(config)
    if role is not None:
        if first == "kind":
            return None if rest else str
        try:
            config = role.find(values.get("kind"))
        except ConfigError:
            return None
    one = next((one for one in attrs.fields(attrs.resolve_types(config)) if one.name == first), None)
    if one is None or not rest:
        return None if one is None else one.type
    nested, value = section_of(one.type), values.get(first, _default(one))
    value = value if isinstance(value, Mapping) else {}
    if nested is None:
        return None
    if _by_name(one.type) or is_by_modality(one.type, value):
        inner, _, rest = rest.partition(".")
        within = value.get(inner)
        return type_of(nested, within if isinstance(within, Mapping) else {}, rest) if rest else nested
    return type_of(nested, value, rest)


def _key(kind: Any, name: str, value: Any, comment: str, change: Change | None) -> Iterator[Key]:
    nested, by_name = section_of(kind), _by_name(kind) or is_by_modality(kind, value)
    if nested is None or not isinstance(value, Mapping):
        if value is REQUIRED and nested is not None and not by_name:
            value = {}  # a section that is not set yet still shows its required keys
        else:
            yield Key(name, value, comment, change=change, type=kind)
            return
    yield Key(name, None, comment, section=True)
    if not by_name:
        yield from keys(nested, value, below=name)
        return
    for inner, item in value.items():
        yield Key(f"{name}.{inner}", None, section=True)
        yield from keys(nested, item, below=f"{name}.{inner}")


def section_of(kind: Any) -> Any:
    """The class whose fields are the keys of a field with this type, if there is one."""
    if get_origin(kind) in (Union, types.UnionType):
        return next((found for part in get_args(kind) if (found := section_of(part)) is not None), None)
    if _by_name(kind):
        return section_of(get_args(kind)[1])
    return kind if role_of(kind) is not None or (isinstance(kind, type) and attrs.has(kind)) else None


def _by_name(kind: Any) -> bool:
    return get_origin(kind) is Mapping


def _default(field: "attrs.Attribute[Any]") -> Any:
    if field.default is attrs.NOTHING:
        return REQUIRED
    default: Any = field.default
    return to_plain(default.factory() if isinstance(default, attrs.Factory) else default)  # type: ignore[arg-type]  # attrs types Factory as a function


@cache
def descriptions(config: type) -> Mapping[str, str]:
    """The first sentence of each field's description, with None as YAML writes it.

    It is taken from the docstrings of the class, its base classes, and the classes that it builds (`described_by`).

    >>> from d2v.core.model import BlockConfig
    >>> descriptions(BlockConfig)["num_heads"]
    'h, divides d'
    """
    found: dict[str, str] = {}
    for source in (*config.__mro__[:-1], *getattr(config, "described_by", ())):
        for name, text in parameters(source.__doc__).items():
            found.setdefault(name, re.sub(r"\bNone\b", "null", text.split(". ")[0].rstrip(".")))
    return found


def parameters(docstring: str | None) -> dict[str, str]:
    """Descriptions of the parameters in a docstring, by name.

    >>> parameters("Draw.\\n\\nArgs:\\n    runs: folders of runs,\\n        of any recipes.")
    {'runs': 'folders of runs, of any recipes.'}
    """
    from docstring_parser import parse

    return {one.arg_name: " ".join((one.description or "").split()) for one in parse(docstring or "").params}
