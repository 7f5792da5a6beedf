"""Write d2v_core/d2v/core/jobs/keywords.py: typed keywords of the calls in `d2v.core`, from the settings classes.

    python tools/make_keywords.py

Run it after changing a settings class, or the data of a built-in modality; a test checks that the file is current.
"""

import re
import textwrap
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from d2v.core.files.kinds import role_of
from d2v.core.jobs.extraction import ExtractSettings
from d2v.core.jobs.fine_tuned import UseSettings
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe
from d2v.core.recipes.keywords import field_types, needed_by, section_forms, short_keys
from d2v.core.recipes.recipe import Run
from d2v.core.recipes.schema import descriptions, section_of

FILE = Path(__file__).parents[1] / "d2v_core/d2v/core/jobs/keywords.py"
CALLS = {
    "PretrainKeys": (PretrainRecipe, "pretrain"),
    "FinetuneKeys": (FinetuneRecipe, "finetune"),
    "UseKeys": (UseSettings, "evaluate` and `predict"),
    "ProbeKeys": (ProbeSettings, "probe"),
    "ExtractKeys": (ExtractSettings, "extract"),
}
# Fields that name a file or a folder, and accept a path object too.
PATHS = ("out", "model", "init")
HEAD = '''"""Keywords of the calls of this package, for editors and type checkers.

Written by tools/make_keywords.py from the settings classes; do not edit it by hand.
"""
'''
WIDTH = 120


@frozen(kw_only=True)
class Field:
    """A keyword."""

    name: str
    type: str
    meaning: str


def text() -> str:
    """Return the content of the file."""
    fields = {name: [*topmost_fields(config), *short_fields(config)] for name, (config, _) in CALLS.items()}
    data = [one for one in fields["ProbeKeys"] if "`data." in one.meaning]
    runs = [one for one in fields["PretrainKeys"] if one in fields["FinetuneKeys"] and one not in data]
    parts = [
        written("DataKeys", "TypedDict, total=False", "Keys of `data`; which of them exist depends on the data.", data),
        written("RunKeys", "DataKeys, total=False", "Keywords that `pretrain` and `finetune` share.", runs),
    ]
    for name, (config, call) in CALLS.items():
        base, inherited = ("RunKeys", [*runs, *data]) if issubclass(config, Run) else ("DataKeys", data)
        own = [one for one in fields[name] if one not in inherited]
        parts.append(written(name, f"{base}, total=False", f"Keywords of `{call}`.", own))
    body = "\n\n".join(parts)
    return f"{HEAD}\n{imports(body)}\n\n{body}"


def topmost_fields(config: type) -> list[Field]:
    """Return the top-level keys of a settings class."""
    meanings = descriptions(config)
    return [
        Field(name=one.name, type=accepted(one), meaning=meanings.get(one.name, ""))
        for one in attrs.fields(attrs.resolve_types(config))
    ]


def short_fields(config: type) -> list[Field]:
    """Return the keys in sections that need no dots."""
    found = []
    topmost = field_types(config)
    for name, key in short_keys(config).items():
        forms = section_forms(section_of(topmost[key.partition(".")[0]]))
        form = next(one for one in forms if name in field_types(one))
        declared = next(one for one in attrs.fields(form) if one.name == name)
        meaning = descriptions(form).get(name, "")
        found.append(Field(name=name, type=accepted(declared), meaning=f"{meaning} (`{key}`)".strip()))
    return found


def accepted(one: "attrs.Attribute[Any]") -> str:
    """Return the type that a field accepts: that of its converter, if it has one."""
    hints: dict[str, Any] = get_type_hints(one.converter) if callable(one.converter) else {}
    hints.pop("return", None)
    taken = next(iter(hints.values()), Any)
    kind = one.type if taken is Any else taken
    parts = spelled(kind).split(" | ")
    if one.name in PATHS and "str" in parts:
        parts.insert(1, "PathLike[str]")
    return " | ".join(parts)


def spelled(kind: Any) -> str:
    """Return a type as written in a signature; a section also accepts a mapping."""
    if kind is None or kind is types.NoneType:
        return "None"
    if role_of(kind) is not None:
        path = "str | PathLike[str] | " if needed_by(kind) else ""
        return f"{path}{kind.__name__} | Mapping[str, Any]"
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:  # the annotation does not concern the caller
        return spelled(inner[0])
    if origin in (Union, types.UnionType):
        parts = [part for one in inner for part in spelled(one).split(" | ")]
        if section_of(kind) is not None:
            parts = [part for part in parts if "Mapping" not in part] + ["Mapping[str, Any]"]
        return " | ".join(sorted(dict.fromkeys(parts), key=lambda part: part == "None"))
    if origin is Literal:
        return f"Literal[{', '.join(double_quoted(one) for one in inner)}]"
    if origin in (tuple, list):
        item = spelled(inner[0])
        # A str is a sequence of str too, but must be refused.
        return "list[str] | tuple[str, ...]" if item == "str" else f"Sequence[{item}]"
    if origin is Mapping:
        return f"Mapping[{', '.join(map(spelled, inner))}]"
    if attrs.has(kind):
        return f"{kind.__name__} | Mapping[str, Any]"
    return str(kind.__name__)


def double_quoted(value: object) -> str:
    """Return a literal in the formatter's style."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def written(name: str, bases: str, title: str, fields: list[Field]) -> str:
    """Return the code of a class."""
    lines = [f"class {name}({bases}):", *paragraph(title)]
    for one in fields:
        meaning = one.meaning.replace("null = ", "None = ")
        if meaning.split(" ")[1:2] != ["="]:  # unless it starts with a value and its meaning
            meaning = f"{meaning[:1].upper()}{meaning[1:]}"
        lines += ["", f"    {one.name}: {one.type}", *paragraph(f"{meaning}.")]
    return "\n".join(lines) + "\n"


def paragraph(text: str) -> list[str]:
    """Return a docstring in one line or several."""
    one = f'    """{text}"""'
    if len(one) <= WIDTH:
        return [one]
    wrapped = textwrap.wrap(f'"""{text}', WIDTH, initial_indent="    ", subsequent_indent="    ")
    return [*wrapped, '    """']


def imports(body: str) -> str:
    """Return the import lines for the names in the code."""
    homes = {"collections.abc": {"Mapping", "Sequence"}, "os": {"PathLike"}, "typing": {"Any", "Literal", "TypedDict"}}
    for kind in section_classes():
        homes.setdefault(kind.__module__, set()).add(kind.__name__)
    used = set(re.findall(r"\w+", re.sub(r'""".*?"""', "", body, flags=re.S)))
    lines = {module: import_line(module, names & used) for module, names in sorted(homes.items()) if names & used}
    first_party = [line for module, line in lines.items() if module.startswith("d2v.")]
    return "\n".join([*(line for line in lines.values() if line not in first_party), "", *first_party]) + "\n"


def import_line(module: str, names: set[str]) -> str:
    """Return an import in the formatter's style."""
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in sorted(names)), ")"])


def section_classes() -> Iterable[type]:
    """Yield the classes of the sections."""
    for config, _ in CALLS.values():
        for kind in field_types(config).values():
            if (section := section_of(kind)) is not None:
                yield section


if __name__ == "__main__":
    FILE.write_text(text())
    print(FILE)
