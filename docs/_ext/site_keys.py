"""The reference of configuration classes: each field with its type, default and meaning, read from the classes."""

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from d2v.core.files import to_plain
from d2v.core.files.kinds import role_of
from d2v.core.jobs.evaluation import UseSettings
from d2v.core.jobs.extraction import ExtractSettings
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.paths import is_path
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe
from d2v.core.recipes.schema import descriptions
from d2v.core.recipes.yaml_text import yaml_scalar

ROOTS: dict[str, type] = {
    "`d2v pretrain`": PretrainRecipe,
    "`d2v finetune`": FinetuneRecipe,
    "`d2v evaluate`, `d2v predict`": UseSettings,
    "`d2v probe`": ProbeSettings,
    "`d2v extract`": ExtractSettings,
}
_SIMPLE = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}


def keys_text() -> str:
    """The body of the page, MyST: the commands' own keys, then every class that a key may hold."""
    places: dict[Any, list[str]] = {}
    for config in ROOTS.values():
        for place, kind in _below(config, ""):
            found = places.setdefault(kind, [])
            if (line := f"`{place}`") not in found:
                found.append(line)
    parts = [f"## {title}\n\n{_table(config)}" for title, config in ROOTS.items()]
    for kind, where in places.items():
        parts.append(f"({_anchor(kind)})=\n\n## {kind.__name__}\n\nAt {', '.join(where)}.\n\n{_body(kind)}")
    return "\n".join(parts)


def _body(kind: Any) -> str:
    role = role_of(kind)
    if role is None:
        return _table(kind)
    forms = {name: role.find(name) for name in role.names()}
    intro = f"One of several forms; `kind` says which: {', '.join(f'`{name}`' for name in forms)}.\n"
    texts = [f"### `kind: {name}`\n\n{_summary(form)}\n\n{_table(form)}" for name, form in forms.items()]
    return "\n".join([intro, *texts])


def _summary(config: type) -> str:
    return (config.__doc__ or "").strip().splitlines()[0]


def _table(config: type) -> str:
    comments = descriptions(config)
    lines = ["```{rst-class} keys\n```\n", "| key | meaning | type | default |", "|---|---|---|---|"]
    for one in _fields(config):
        cells = (f"`{one.name}`", comments.get(one.name, ""), _type(one.type), _default(one))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _fields(config: type) -> "tuple[attrs.Attribute[Any], ...]":
    found: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(config))
    return found


def _below(config: type, place: str, above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Classes that the keys of a class may hold, and at which dotted key; what holds its own kind is not followed."""
    for one in _fields(config):
        kind, name = _nested(one.type), f"{place}{one.name}"
        if kind is None:
            continue
        name += ".<modality>" if get_origin(one.type) is Mapping else ""
        yield name, kind
        role = role_of(kind)
        forms = [kind] if role is None else [role.find(known) for known in role.names()]
        for form in forms if kind not in above else ():
            yield from _below(form, f"{name}.", (*above, kind))


def _nested(kind: Any) -> Any:
    """The configuration class, or the role with several kinds, in a type."""
    if role_of(kind) is not None or (isinstance(kind, type) and attrs.has(kind)):
        return kind
    return next((found for part in get_args(kind) if (found := _nested(part)) is not None), None)


def _type(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated and is_path(kind):
        return "path"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    if origin is Literal:
        return ", ".join(f"`{yaml_scalar(part)}`" for part in parts)
    if origin is Mapping:
        return f"{_type(parts[1])} by modality"
    if origin in (tuple, list, Sequence):
        inner = [part for part in parts if part is not Ellipsis]
        return f"list of {_type(inner[0])}" if inner else "list"
    if _nested(kind) is not None:
        return f"[{kind.__name__}](#{_anchor(kind)})"
    return _SIMPLE.get(kind, getattr(kind, "__name__", str(kind)))


def _default(one: "attrs.Attribute[Any]") -> str:
    if one.default is attrs.NOTHING:
        return "see there" if _nested(one.type) is not None else "to be given"
    default: Any = one.default
    value = to_plain(default.factory() if isinstance(default, attrs.Factory) else default)  # type: ignore[arg-type]  # attrs types Factory as a function
    return "see there" if isinstance(value, Mapping) else f"`{yaml_scalar(value)}`"


def _anchor(kind: Any) -> str:
    return f"keys-{kind.__name__.lower()}"
