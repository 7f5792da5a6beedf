"""The key reference: type, default and description of each key, and the recipes that set another value.

Generated from the configuration classes and the recipes.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from d2v.core.files import to_plain
from d2v.core.files.kinds import role_of
from d2v.core.jobs.extraction import ExtractSettings
from d2v.core.jobs.fine_tuned import UseSettings
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.paths import is_path
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe, recipe_names, recipe_values
from d2v.core.recipes.schema import descriptions
from d2v.core.recipes.yaml_text import yaml_scalar

ROOTS: dict[str, type] = {
    "`d2v pretrain`": PretrainRecipe,
    "`d2v finetune`": FinetuneRecipe,
    "`d2v evaluate`, `d2v predict`": UseSettings,
    "`d2v probe`": ProbeSettings,
    "`d2v extract`": ExtractSettings,
}
_SIMPLE = {int: "integer", float: "number", bool: "true or false", str: "text", type(None): "null"}


def keys_text() -> str:
    """Body of the page, MyST: the keys of each command, then the sections, each under the first key that has it."""
    places: dict[Any, list[str]] = {}
    commands: dict[Any, list[str]] = {}
    for title, config in ROOTS.items():
        for place, kind in _below(config, ""):
            for found, item in ((places.setdefault(kind, []), place), (commands.setdefault(kind, []), title)):
                if item not in found:
                    found.append(item)
    parts = [f"## {title}\n\n{_table(config, '', [title])}" for title, config in ROOTS.items()]
    for kind, (place, *others) in places.items():
        also = f" The same keys exist under {', '.join(f'`{other}`' for other in others)}." if others else ""
        intro = f"{kind.__name__}, used by {', '.join(commands[kind])}.{also}"
        parts.append(f"({_anchor(kind)})=\n\n## `{place}`\n\n{intro}\n\n{_body(kind, place, commands[kind])}")
    return "\n".join(parts)


def _body(config: Any, place: str, commands: Sequence[str]) -> str:
    role = role_of(config)
    if role is None:
        return _table(config, place, commands)
    forms = {name: role.find(name) for name in role.names()}
    intro = f"Set `{place}.kind` to one of {', '.join(f'`{name}`' for name in forms)}.\n"
    texts = [
        f"### `{place}.kind={name}`\n\n{_summary(form)}\n\n{_table(form, place, commands, name)}"
        for name, form in forms.items()
    ]
    return "\n".join([intro, *texts])


def _summary(config: type) -> str:
    return (config.__doc__ or "").strip().splitlines()[0]


def _table(config: type, place: str, commands: Sequence[str], kind: str | None = None) -> str:
    """The fields of a class, as full dotted keys of a recipe."""
    comments = descriptions(config)
    rows = [["key", "description", "type", "default", "in recipes"], ["---"] * 5]
    for one in _fields(config):
        key = f"{place}.{one.name}" if place else one.name
        default = _default(one)
        there = _in_recipes(key, default, kind, commands)
        rows.append([f"`{key}`", comments.get(one.name, ""), _type(one.type), default, there])
    if not any(row[-1] for row in rows[2:]):
        rows = [row[:-1] for row in rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(["```{rst-class} keys\n```\n", *lines]) + "\n"


def _in_recipes(key: str, default: str, kind: str | None, commands: Sequence[str]) -> str:
    """Values of a key that differ from its default in recipes of the commands, with the names of the recipes."""
    found: dict[str, list[str]] = {}
    for name, (recipe, values) in _recipes().items():
        if not any(ROOTS[command] is recipe for command in commands):
            continue
        *above, last = key.split(".")
        section: Any = values
        for step in above:
            if step == "<modality>":
                step = next(iter(section), "") if isinstance(section, Mapping) else ""
            section = section.get(step) if isinstance(section, Mapping) else None
        if not isinstance(section, Mapping) or last not in section or isinstance(section[last], Mapping):
            continue
        if kind is not None and section.get("kind", kind) != kind:
            continue
        text = f"`{yaml_scalar(section[last])}`"
        if text != default:
            found.setdefault(text, []).append(name)
    return "; ".join(f"{text} {', '.join(names)}" for text, names in found.items())


@cache
def _recipes() -> dict[str, tuple[type, Mapping[str, Any]]]:
    return {name: recipe_values(name) for name in recipe_names()}


def _fields(config: type) -> "tuple[attrs.Attribute[Any], ...]":
    found: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(config))
    return found


def _below(config: type, place: str, above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Nested configuration classes of a class with their dotted keys; recursive classes are followed once."""
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
    """The configuration class, or the role with several kinds, inside a type."""
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
        return "" if _nested(one.type) is not None else "required"
    default: Any = one.default
    value = to_plain(default.factory() if isinstance(default, attrs.Factory) else default)  # type: ignore[arg-type]  # attrs types Factory as a function
    return "" if isinstance(value, Mapping) else f"`{yaml_scalar(value)}`"


def _anchor(kind: Any) -> str:
    return f"keys-{kind.__name__.lower()}"
