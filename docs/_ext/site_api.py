"""One page for each room of the library, with all its public names; docstrings are read by autodoc."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

PORTIONS = ("d2v.core", "d2v.vision", "d2v.audio", "d2v.text")


@cache
def rooms() -> dict[str, ModuleType]:
    """Modules that say what is public, by name: the portions and what lies directly below them."""
    found = {}
    for portion in PORTIONS:
        package = importlib.import_module(portion)
        names = [portion, *(f"{portion}.{one.name}" for one in pkgutil.iter_modules(package.__path__))]
        for name in names:
            # `__main__` would run; a file of helpers has no list of names.
            if not name.endswith("__") and hasattr(module := importlib.import_module(name), "__all__"):
                found[name] = module
    return found


@cache
def homes() -> dict[str, str]:
    """Where each public object is described, by every dotted name that it goes by.

    A portion repeats names of its rooms; the room is their home.
    """
    found: dict[str, str] = {}
    by_object: dict[int, str] = {}
    for room in sorted(rooms(), key=lambda name: -name.count(".")):
        for name in rooms()[room].__all__:
            value = getattr(rooms()[room], name)
            home = by_object.setdefault(id(value), f"{room}.{name}")
            found[f"{room}.{name}"] = home
            if hasattr(value, "__qualname__"):
                found[f"{value.__module__}.{value.__qualname__}"] = home
    return found


@cache
def short_names() -> dict[str, str]:
    """The home of each public name that is the name of one thing only."""
    found: dict[str, set[str]] = {}
    for name, home in homes().items():
        found.setdefault(name.rpartition(".")[2], set()).add(home)
    return {name: homes.pop() for name, homes in found.items() if len(homes) == 1}


def api_pages() -> Iterator[tuple[str, str]]:
    """Paths below `_generated`, and texts."""
    for room, module in rooms().items():
        parts = [f"# {room}\n", f"{inspect.getdoc(module) or ''}\n"]
        here = [name for name in module.__all__ if homes()[f"{room}.{name}"] == f"{room}.{name}"]
        rows = [
            f"| {{py:obj}}`{name} <{homes()[f'{room}.{name}']}>` | {_first_line(getattr(module, name))} |"
            for name in sorted(module.__all__)
        ]
        parts.append("| name | what it is |\n|---|---|\n" + "\n".join(rows) + "\n")
        parts += [f"```{{eval-rst}}\n{_directive(room, name, getattr(module, name))}```\n" for name in here]
        yield f"api/{room}.md", "\n".join(parts)


def _first_line(value: Any) -> str:
    """What a name is: the first line of its docstring; a constant has none of its own, and shows its type."""
    if not (inspect.isclass(value) or inspect.isroutine(value)) and type(value).__module__ == "builtins":
        return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else repr(value)
    return next(iter((inspect.getdoc(value) or "").splitlines()), "").replace("|", "\\|")


def _directive(room: str, name: str, value: Any) -> str:
    full = f"{room}.{name}"
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        # The constructor of a protocol says nothing.
        signature = "()" if getattr(value, "_is_protocol", False) or kind == "exception" else ""
        return f".. auto{kind}:: {full}{signature}\n   :members:\n   :special-members: __call__\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {full}\n"
    shown = f"   :value: {value!r}\n" if isinstance(value, str | int | float | tuple | list) else ""
    return f".. py:data:: {full}\n   :type: {type(value).__name__}\n{shown}"
