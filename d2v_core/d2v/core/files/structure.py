"""Configurations as plain values, for JSON and YAML, and back.

What may stand in several forms (adapters, predictors, maskers) carries its kind. Kinds are looked up in fixed tables
and among the registered modalities; nothing that a file names is ever imported.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar

import attrs

from d2v.core.data import DataConfig
from d2v.core.masks import BlockMasker, ChannelMasker, InverseBlockMasker, Masker, RandomMasker, SpanMasker
from d2v.core.model import AdapterConfig, ConvDecoderConfig, MaskedHeadConfig, PredictorConfig
from d2v.core.registry import modalities
from d2v.core.suggestions import nearest
from d2v.core.task import Task

_Config = TypeVar("_Config")

_MASKERS: dict[str, type] = {
    "inverse-blocks": InverseBlockMasker,
    "spans": SpanMasker,
    "random": RandomMasker,
    "blocks": BlockMasker,
    "channels": ChannelMasker,
}
_PREDICTORS: dict[str, type] = {"conv-decoder": ConvDecoderConfig, "masked-head": MaskedHeadConfig}


_SIMPLE: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class ConfigError(ValueError):
    """A configuration cannot be read; the message names the key, what was expected and the nearest valid name."""


def to_plain(value: Any) -> Any:
    """A configuration as dicts, lists, strings and numbers.

    >>> from d2v.core import EMASchedule
    >>> to_plain(EMASchedule(0.999, end=0.9999, anneal=30_000))
    {'start': 0.999, 'end': 0.9999, 'anneal': 30000, 'total': None, 'first': 1}
    >>> to_plain(RandomMasker(mask_prob=0.5))
    {'kind': 'random', 'mask_prob': 0.5, 'pad_aware': True}
    """
    if attrs.has(type(value)):
        fields = {field.name: to_plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
        kind = _kind_of(type(value))
        return fields if kind is None else {"kind": kind} | fields
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def from_plain(values: Any, config: type[_Config]) -> _Config:
    """A configuration out of plain values.

    Args:
        values: as `to_plain` gives them; fields with defaults may be missing.
        config: the class to make.

    Raises:
        ConfigError: naming every key that is unknown, missing or of a wrong type.

    >>> from d2v.core import EMASchedule
    >>> from_plain({"start": 0.999, "ned": 1.0}, EMASchedule)
    Traceback (most recent call last):
    d2v.core.files.structure.ConfigError: unknown key 'ned'; did you mean 'end'?
    """
    try:
        made: _Config = _converter().structure(values, config)
    except Exception as error:  # whatever a validator or cattrs raises is told as one line
        raise ConfigError("; ".join(_explain(error, ""))) from error
    return made


def add_role(role: type, table: Mapping[str, type]) -> None:
    """Let fields of this type stand in several forms, told apart by `kind`; for rooms above this one."""
    _ROLES[role] = lambda: table


def kinds(role: Any) -> Mapping[str, type] | None:
    """The forms of a type by the name of their kind; None if it has one form only."""
    return next((table() for known, table in _ROLES.items() if known is role), None)


def _registered(part: str) -> dict[str, Any]:
    found = {
        name: getattr(modalities.load(name), part) for name in modalities.names() if name not in modalities.broken()
    }
    return {name: known for name, known in found.items() if known is not None}


def _tasks() -> dict[str, type]:
    return {
        f"{modality}/{name}": task for modality, tasks in _registered("tasks").items() for name, task in tasks.items()
    }


_ROLES: dict[type, Callable[[], Mapping[str, type]]] = {
    Masker: lambda: _MASKERS,
    PredictorConfig: lambda: _PREDICTORS,
    AdapterConfig: lambda: _registered("adapter"),
    DataConfig: lambda: _registered("data"),
    Task: _tasks,
}


def _kind_of(config: type) -> str | None:
    return next((name for table in _ROLES.values() for name, known in table().items() if known is config), None)


@cache
def _converter() -> Any:
    import cattrs
    from cattrs.strategies import configure_union_passthrough

    converter = cattrs.Converter(forbid_extra_keys=True, prefer_attrib_converters=True)
    configure_union_passthrough(bool | int | float | str | None, converter)

    def tagged(values: Any, role: type) -> Any:
        table = kinds(role) or {}
        fields = dict(values)
        kind = fields.pop("kind", None)
        if kind not in table:
            hint = "" if kind is None else nearest(kind, table)
            raise ConfigError(f"kind {kind!r} is not one of {', '.join(sorted(table))}{hint}")
        return converter.structure(fields, table[kind])

    converter.register_structure_hook_func(lambda cl: any(cl is role for role in _ROLES), tagged)
    converter.register_structure_hook(
        tuple[int, ...] | int, lambda v, _: v if isinstance(v, int) else tuple(map(int, v))
    )
    converter.register_structure_hook_func(
        lambda cl: cl == tuple[int, ...] | Literal["final"],
        lambda v, _: v if v == "final" else converter.structure(_listed(v), tuple[int, ...]),
    )
    for simple in _SIMPLE:
        converter.register_structure_hook(simple, _simple)
    return converter


def _simple(value: Any, kind: type) -> Any:
    """A value of exactly this kind; a whole number will do for a float, and 3.0 for an int."""
    number = kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool)
    if number and kind(value) == value:
        return kind(value)
    if not number and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise TypeError(f"expected {_SIMPLE[kind]}, not {value!r}")


def _listed(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list of layers or final, not {value!r}")
    return value


def _explain(error: BaseException, key: str) -> list[str]:
    """One line a mistake out of the tree of errors that cattrs raises."""
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
            place = next((str(getattr(note, "name", getattr(note, "index", ""))) for note in notes), "")
            lines += _explain(inner, _below(key, place) if place else key)
        return lines
    if isinstance(error, KeyError):
        return [f"missing key {_below(key, str(error.args[0]))!r}" if not key else f"missing key {key!r}"]
    told = str(error)
    if "not in literal" in told:
        told = told.replace("not in literal typing.Literal", "is not one of ")
    elif isinstance(error, TypeError) and "not iterable" in told:
        told = "expected a mapping of keys"
    return [f"{key}: {told}" if key else told]


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
