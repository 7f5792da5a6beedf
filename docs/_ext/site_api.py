"""One page for each public package, with all its public names; autodoc reads the docstrings."""

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

PACKAGES = ("d2v.core", "d2v.vision", "d2v.audio", "d2v.text")
_MODULES = ("d2v.hugging_face",)  # beside the packages, with public names of their own
_ALIASES = ("typing", "types", "collections.abc")  # modules of the types of type aliases


@cache
def public_packages() -> dict[str, ModuleType]:
    """Packages and modules with public names (`__all__`), by name: top packages, those directly below, and others."""
    found = {}
    for top in PACKAGES:
        package = importlib.import_module(top)
        names = [top, *(f"{top}.{one.name}" for one in pkgutil.iter_modules(package.__path__))]
        for name in names:
            # Importing `__main__` would run it; private modules have no `__all__`.
            if not name.endswith("__") and hasattr(module := importlib.import_module(name), "__all__"):
                found[name] = module
    return found | {name: importlib.import_module(name) for name in _MODULES}


@cache
def homes() -> dict[str, str]:
    """Where each public object is documented, by each of its dotted names.

    A top package repeats names of the packages below it; objects are documented in the lower one.
    """
    found: dict[str, str] = {}
    by_object: dict[int, str] = {}
    for package in sorted(public_packages(), key=lambda name: -name.count(".")):
        for name in public_packages()[package].__all__:
            value = getattr(public_packages()[package], name)
            home = by_object.setdefault(id(value), f"{package}.{name}")
            found[f"{package}.{name}"] = home
            if hasattr(value, "__qualname__"):
                found[f"{value.__module__}.{value.__qualname__}"] = home
    return found


@cache
def short_names() -> dict[str, str]:
    """The home of each public name that is unique."""
    found: dict[str, set[str]] = {}
    for name, home in homes().items():
        found.setdefault(name.rpartition(".")[2], set()).add(home)
    return {name: homes.pop() for name, homes in found.items() if len(homes) == 1}


def api_pages() -> Iterator[tuple[str, str]]:
    """Paths below `_generated`, with the text of each page."""
    for package, module in public_packages().items():
        parts = [f"# {package}\n", f"{inspect.getdoc(module) or ''}\n"]
        here = [name for name in module.__all__ if homes()[f"{package}.{name}"] == f"{package}.{name}"]
        rows = [
            f"| {{py:obj}}`{name} <{homes()[f'{package}.{name}']}>` | {_description(package, name)} |"
            for name in sorted(module.__all__)
        ]
        parts.append("| name | description |\n|---|---|\n" + "\n".join(rows) + "\n")
        parts += [f"```{{eval-rst}}\n{_directive(package, name, getattr(module, name))}```\n" for name in here]
        yield f"api/{package}.md", "\n".join(parts)


def packages_text() -> str:
    """Table of the packages with the first line of their docstrings, for `docs/api/index.md`."""
    rows = [
        f"| [`{name}`](../_generated/api/{name}.md) | {_first_line(one)} |" for name, one in public_packages().items()
    ]
    return "\n".join(["| package | content |", "|---|---|", *rows]) + "\n"


def _description(package: str, name: str) -> str:
    """First line of the docstring of a name; that of a constant or a type alias is below its assignment."""
    value = getattr(public_packages()[package], name)
    said = "" if inspect.isclass(value) or inspect.isroutine(value) else _assigned(package, name)[1]
    return said.partition("\n")[0].replace("|", "\\|") or _first_line(value)


def _first_line(value: Any) -> str:
    return next(iter((inspect.getdoc(value) or "").splitlines()), "").replace("|", "\\|")


@cache
def _assigned(package: str, name: str) -> tuple[str, str]:
    """Source of the value, and docstring, of a name that a module of the package assigns; empty without one."""
    home = homes()[f"{package}.{name}"].rpartition(".")[0]
    for key, module in sorted(sys.modules.items()):
        inside = f"{key}.".startswith(f"{home}.") and getattr(module, "__file__", None)
        for node, after in pairwise(ast.parse(inspect.getsource(module)).body) if inside else ():
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and target.id == name:
                text = after.value if isinstance(after, ast.Expr) else None
                said = str(text.value) if isinstance(text, ast.Constant) else ""
                return ast.unparse(node.value) if node.value else "", said
    return "", ""


def _directive(package: str, name: str, value: Any) -> str:
    full = f"{package}.{name}"
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        # The constructor of a protocol is not informative.
        signature = "()" if getattr(value, "_is_protocol", False) or kind == "exception" else ""
        return f".. auto{kind}:: {full}{signature}\n   :members:\n   :special-members: __call__\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {full}\n"
    source, said = _assigned(package, name)
    if isinstance(value, str | int | float | tuple | list):
        shown = f"   :value: {value!r}\n"
    elif type(value).__module__ in _ALIASES:
        shown = f"   :value: {source}\n"
    else:
        shown = f"   :type: {type(value).__name__}\n"
    body = "".join(f"   {line}".rstrip() + "\n" for line in said.replace("`", "``").splitlines())
    return f".. py:data:: {full}\n{shown}\n{body}"
