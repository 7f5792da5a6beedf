"""Public names are a promise: a new one must be added to public_names.toml."""

import importlib
import inspect
import pkgutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

# `__all__` of each package and of each of its modules that has one, sorted.
PUBLIC: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "public_names.toml").read_text())
PACKAGES = ("d2v.core", "d2v.vision", "d2v.audio", "d2v.text")
MODULES = ("d2v.hugging_face",)  # beside the packages


def children(package: ModuleType) -> list[str]:
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


def packages() -> list[str]:
    found = list(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        found += [module.name for module in pkgutil.walk_packages(path, f"{package}.") if module.ispkg]
    return found


def clashes(modules: list[str], names: dict[str, object]) -> list[str]:
    """Names of functions that a module of the same package bears too: importing the one would hide the other."""
    return sorted(name for name, value in names.items() if inspect.isroutine(value) and name in modules)


@pytest.mark.parametrize("name", PUBLIC["d2v.core"])
def test_every_piece_shows_an_example(name: str) -> None:
    piece = getattr(importlib.import_module("d2v.core"), name)
    if callable(piece):
        assert ">>>" in (piece.__doc__ or "")


def test_every_package_and_module_is_listed() -> None:
    listed = {*PACKAGES, *MODULES}
    for package in PACKAGES:
        modules = [f"{package}.{name}" for name in children(importlib.import_module(package)) if name[0] != "_"]
        listed |= {name for name in modules if hasattr(importlib.import_module(name), "__all__")}
    assert sorted(PUBLIC) == sorted(listed)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert sorted(names) == PUBLIC[name]
    assert [missing for missing in names if not hasattr(module, missing)] == []


@pytest.mark.parametrize("name", packages())
def test_no_function_bears_the_name_of_a_module_of_its_package(name: str) -> None:
    package = importlib.import_module(name)
    modules = children(package)
    found = clashes(modules, {n: value for n, value in vars(package).items() if n[0] != "_"})
    for child in modules:
        if child != "__main__":
            module = importlib.import_module(f"{name}.{child}")
            own = {
                n: v for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", "") == module.__name__
            }
            found += clashes(modules, own)
    assert found == [], f"{name}: a file must not be named after a public function"


def test_the_clash_check_sees() -> None:
    assert clashes(["fit", "loop"], {"fit": lambda: None, "loop": 1}) == ["fit"]
