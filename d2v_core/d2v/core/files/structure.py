"""Configurations as plain values, for JSON and YAML, and back.

Values of a role (adapters, predictors, maskers) carry their kind, see `kinds`.
"""

import os
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs

from d2v.core.files.kinds import ConfigError, Role, role_of, roles
from d2v.core.paths import expanded, is_path
from d2v.core.registry import PluginError
from d2v.core.suggestions import nearest

_Config = TypeVar("_Config")

_MISSING = "missing key "
_SIMPLE: dict[type, str] = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def to_plain(value: Any, declared: Any = None) -> Any:
    """A configuration as dicts, lists, strings and numbers.

    Args:
        value: an attrs instance, or the value of a field.
        declared: type of the field, if it is the value of one.

    Raises:
        ConfigError: if a value fills a role and has no kind, so that it could not be read back.

    >>> from d2v.core import EMASchedule, RandomMasker
    >>> to_plain(EMASchedule(0.999, end=0.9999, anneal=30_000))
    {'start': 0.999, 'end': 0.9999, 'anneal': 30000, 'total': None, 'first': 1}
    >>> to_plain(RandomMasker(mask_prob=0.5))
    {'kind': 'random', 'mask_prob': 0.5, 'pad_aware': True}
    """
    if isinstance(value, Mapping):
        return {key: to_plain(item, declared) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, declared) for item in value]
    if value is None or type(value) in _SIMPLE:
        return value
    fields = {}
    if attrs.has(type(value)):
        fields = {one.name: to_plain(getattr(value, one.name), one.type) for one in _fields(type(value))}
    role = role_within(declared)
    kind = _kind_of(type(value)) if role is None else role.kind_of(type(value))
    if kind is not None:
        return {"kind": kind} | fields
    if role is not None:
        raise ConfigError(
            f"{type(value).__name__} is used as {role.name} and has no kind, so it could not be read back: declare it "
            "as an entry point of its role, or give it a kind with add_kind"
        )
    return fields if attrs.has(type(value)) else value


def from_plain(values: Any, config: type[_Config]) -> _Config:
    """A configuration from plain values.

    Args:
        values: as from `to_plain`; fields with defaults may be missing.
        config: class to create.

    Raises:
        ConfigError: naming every key that is unknown, missing or of a wrong type.

    >>> from d2v.core import EMASchedule
    >>> from_plain({"start": 0.999, "ned": 1.0}, EMASchedule)
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: unknown key 'ned'; did you mean 'end'?
    """
    try:
        made: _Config = _converter().structure(values, config)
    except Exception as error:  # any error of a validator or cattrs becomes one line
        _raise_plugin_error(error)
        raise ConfigError("; ".join(_explain(error, ""))) from None  # the groups of cattrs say the same at length
    return made


def mistakes(values: Any, config: type) -> list[str]:
    """Errors that `from_plain` would report, one line each, except missing keys.

    >>> from d2v.core import EMASchedule
    >>> mistakes({"end": "far"}, EMASchedule)
    ["end: expected a number, not 'far'"]
    """
    try:
        _converter().structure(values, config)
    except Exception as error:  # as in from_plain
        _raise_plugin_error(error)
        return [line for line in _explain(error, "") if not line.startswith(_MISSING)]
    return []


def is_text(declared: Any) -> bool:
    """Whether a type is text, or one of several words.

    >>> is_text(str), is_text(Literal["mean", "grid"]), is_text(Literal[1, 3])
    (True, True, False)
    """
    words = get_args(declared) if get_origin(declared) is Literal else (None,)
    return declared is str or all(isinstance(word, str) for word in words)


def is_list_of_texts(declared: Any) -> bool:
    """Whether a type is a tuple of any number of texts.

    >>> is_list_of_texts(tuple[str, ...]), is_list_of_texts(tuple[int, ...])
    (True, False)
    """
    return get_origin(declared) is tuple and get_args(declared)[1:] == (...,) and is_text(get_args(declared)[0])


def _raise_plugin_error(error: BaseException) -> None:
    """Raise errors of the installation unchanged, since no change of the configuration can fix them."""
    if isinstance(error, PluginError):
        raise error
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        _raise_plugin_error(inner)


def role_within(declared: Any) -> Role | None:
    """The role of values of a type, also inside a union or a mapping; None if they fill no role."""
    found = role_of(declared)
    return found or next((inner for part in get_args(declared) if (inner := role_within(part)) is not None), None)


def is_by_modality(declared: Any, values: Any) -> bool:
    """Whether values for `Role | Mapping[str, Role]` are by modality, and not a single configuration.

    A single configuration has a kind or a role with a default kind; values by modality are all mappings with a kind.
    """
    return (
        _may_be_by_modality(declared)
        and isinstance(values, Mapping)
        and "kind" not in values
        and bool(values)
        and all(isinstance(value, Mapping) and "kind" in value for value in values.values())
    )


def _may_be_by_modality(declared: Any) -> bool:
    if get_origin(declared) not in (Union, types.UnionType):
        return False
    parts = get_args(declared)
    return any(role_of(part) for part in parts) and any(get_origin(part) is Mapping for part in parts)


def _fields(config: type) -> Any:
    return attrs.fields(attrs.resolve_types(config))


def _kind_of(config: type) -> str | None:
    return next((kind for role in roles() if (kind := role.kind_of(config)) is not None), None)


@cache
def _converter() -> Any:
    import cattrs
    from cattrs.strategies import configure_union_passthrough

    converter = cattrs.Converter(forbid_extra_keys=True, prefer_attrib_converters=True)
    configure_union_passthrough(bool | int | float | str | None, converter)

    def tagged(values: Any, declared: Any) -> Any:
        role = role_of(declared)
        assert role is not None
        fields = dict(values)
        return converter.structure(fields, role.find(fields.pop("kind", None)))

    def single_or_by_modality(values: Any, declared: Any) -> Any:
        single, by_name = get_args(declared)
        return converter.structure(values, by_name if is_by_modality(declared, values) else single)

    converter.register_structure_hook_func(lambda cl: role_of(cl) is not None, tagged)
    converter.register_structure_hook_func(_may_be_by_modality, single_or_by_modality)
    converter.register_structure_hook(
        tuple[int, ...] | int, lambda v, _: v if isinstance(v, int) else tuple(map(int, v))
    )
    converter.register_structure_hook_func(
        lambda cl: cl == tuple[int, ...] | Literal["final"],
        lambda v, _: v if v == "final" else converter.structure(_listed(v), tuple[int, ...]),
    )
    for simple in _SIMPLE:
        converter.register_structure_hook(simple, _simple)
    converter.register_structure_hook_func(is_list_of_texts, lambda v, cl: _texts(converter, v, cl))
    converter.register_structure_hook_func(lambda cl: hasattr(cl, "__metadata__") and is_path(cl), _path)
    return converter


def _simple(value: Any, kind: type) -> Any:
    """Convert to exactly this type; integers are valid floats, and 3.0 is a valid int."""
    number = kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool)
    if number and kind(value) == value:
        return kind(value)
    if not number and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    hint = ""
    if kind is str and isinstance(value, bool | int | float):
        hint = f'; in a file, put it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
    raise TypeError(f"expected {_SIMPLE[kind]}, not {value!r}{hint}")


def _path(value: Any, _: Any) -> str:
    return expanded(value if isinstance(value, os.PathLike) else _simple(value, str))


def _texts(converter: Any, value: Any, declared: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list of texts, not {value!r}; write a single one as [{value}]")
    item = get_args(declared)[0]
    return tuple(converter.structure(one, item) for one in value)


def _listed(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list of layers or final, not {value!r}")
    return value


def _explain(error: BaseException, key: str) -> list[str]:
    """One line for each mistake in cattrs' tree of errors."""
    extra = getattr(error, "extra_fields", None)
    if extra is not None:
        known = [field.name for field in attrs.fields(error.cl)]  # type: ignore[attr-defined]  # what has extra fields has cl
        return [f"unknown key {_below(key, name)!r}{nearest(name, known)}" for name in sorted(extra)]
    if isinstance(error, BaseExceptionGroup):
        lines = []
        for inner in error.exceptions:
            notes = [
                note for note in getattr(inner, "__notes__", []) if hasattr(note, "name") or hasattr(note, "index")
            ]
            field = next((str(getattr(note, "name", getattr(note, "index", ""))) for note in notes), "")
            lines += _explain(inner, _below(key, field) if field else key)
        return lines
    if isinstance(error, KeyError):
        return [f"{_MISSING}{_below(key, str(error.args[0]))!r}" if not key else f"{_MISSING}{key!r}"]
    reason = str(error)
    if "not in literal" in reason:
        reason = reason.replace("not in literal typing.Literal", "is not one of ")
    elif isinstance(error, TypeError | AttributeError) and (
        "not iterable" in reason or "no attribute 'keys'" in reason
    ):
        reason = "expected a mapping of keys"
    return [f"{key}: {reason}" if key else reason]


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
