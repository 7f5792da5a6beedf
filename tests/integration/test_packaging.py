"""One distribution with four packages, dependencies that point one way, and light imports."""

import ast
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from d2v.core import __version__
from d2v.core.modality import Modality, modalities

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "vision", "audio", "text")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# What `import d2v.core` may add to `import torch`. A new line here is a new cost for everyone who wants one piece.
THIRD_PARTY = {"attr", "attrs", "einops", "entrypoints", "safetensors", "yaml"}
# The same for all modules of core together.
THIRD_PARTY_ALL_MODULES = {"attr", "attrs", "einops", "entrypoints", "safetensors", "yaml"}

EXTRAS = {"torchvision", "PIL", "torchaudio", "soundfile", "tokenizers", "transformers", "matplotlib"}

# Imports that a module of core must not have. Add a line for each new module.
ABOVE = {"recipes", "jobs", "cli"}
PIECE = {"model", "task", "train", *ABOVE}
BELOW = {"train", *ABOVE}
FROM_DESCRIPTION = {"description", "foreign", "modality", "files"}
FORBIDDEN = {
    "masks": PIECE,
    "nn": PIECE,
    "teacher": PIECE,
    "loss": PIECE,
    "model": BELOW,
    "monitor": BELOW,
    "state_dict": PIECE,
    "registry": {*PIECE, "data", "foreign", "files"},
    "changes": PIECE,
    "classification": {*BELOW, "registry", "data", "task", *FROM_DESCRIPTION},
    "data": {*BELOW, "registry", *FROM_DESCRIPTION},
    "task": {*BELOW, "registry", *FROM_DESCRIPTION},
    "description": {*BELOW, "registry", *FROM_DESCRIPTION} - {"description"},
    "foreign": {*BELOW, "registry", "modality", "files"},
    "modality": {*BELOW, "files"},
    "files": {*BELOW, "exports"},
    "exports": BELOW,
    "train": ABOVE,
    "probes": BELOW,
    "plots": {*PIECE, "files"},
    "recipes": {"jobs", "cli"},
    "jobs": {"cli"},
    "cli": set(),
    "durations": PIECE,
    "finite": {*PIECE, "registry", "data", *FROM_DESCRIPTION},
    "labels": {*BELOW, "registry", "data", "task", *FROM_DESCRIPTION},
    "moments": PIECE,
    "paths": {*PIECE, "registry", "data", *FROM_DESCRIPTION},
    "patterns": PIECE,
    "precision": PIECE,
    "scores": {*BELOW, "registry", "data", "task", *FROM_DESCRIPTION},
    "suggestions": PIECE,
    "unfilled": PIECE,
    "validators": PIECE,
    "version": {*PIECE, "registry", *FROM_DESCRIPTION},
    "wrappers": PIECE,
}


# A module of core, outside its package so that the command that completes words need not import PyTorch.
WITHOUT_TORCH = "_cache"


def package_folder(package: str, root: Path = ROOT) -> Path:
    return root / f"d2v_{package}" / "d2v" / package


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- packages ---------------------------------------------------------------------------------------------------------


def test_there_are_four_portions_and_nobody_owns_the_namespace() -> None:
    roots = sorted(path.name for path in ROOT.glob("d2v_*") if path.is_dir())
    assert roots == sorted(f"d2v_{package}" for package in PACKAGES)
    for package in PACKAGES:
        inside = package_folder(package).parent
        assert not (inside / "__init__.py").exists(), f"d2v_{package} must not own the namespace d2v"
        assert (inside / package / "__init__.py").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str) -> None:
    assert (package_folder(package) / "py.typed").is_file()


def test_declared_entry_points_load() -> None:
    declared = PYPROJECT["project"]["entry-points"]["d2v.modalities"]
    assert sorted(declared) == sorted(set(PACKAGES) - {"core"})
    for name, value in declared.items():
        record = EntryPoint(name=name, value=value, group="d2v.modalities").load()
        assert isinstance(record, Modality)
        assert record.name == name
        assert record.extra == f"d2v[{name}]"
        assert PYPROJECT["project"]["optional-dependencies"][name]


def test_installed_entry_points_are_the_declared_ones() -> None:
    ours = {e.name: e.value for e in entry_points(group="d2v.modalities") if e.dist and e.dist.name == "d2v"}
    assert ours == PYPROJECT["project"]["entry-points"]["d2v.modalities"], "install it first: pip install -e ."
    assert not set(modalities.broken()) & set(ours)


# --- what an import brings --------------------------------------------------------------------------------------------


def added(statement: str) -> set[str]:
    """Top-level modules beyond the standard library that a statement adds to `import torch` in a fresh process."""
    program = f"""
import importlib, pkgutil, sys
import torch
before = set(sys.modules)
{statement}
print(*{{name.partition(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names - {{"d2v"}})
"""
    # PyYAML's parser is compiled by Cython, whose runtime registers itself under its version.
    return {name for name in run(program).split() if not name.startswith(("_cython_", "_yaml"))}


def test_what_import_core_adds_to_torch() -> None:
    assert added("import d2v.core") == THIRD_PARTY


def test_what_all_rooms_of_core_add_to_torch() -> None:
    statement = """
import d2v.core
for module in pkgutil.walk_packages(d2v.core.__path__, "d2v.core."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    assert added(statement) == THIRD_PARTY_ALL_MODULES


def test_what_is_added_is_seen() -> None:
    assert "hypothesis" in added("import hypothesis")


@pytest.mark.parametrize("statement", ["import d2v.core", "import d2v.vision, d2v.audio, d2v.text"])
def test_no_package_of_an_extra_is_imported(statement: str) -> None:
    loaded = run(f"import sys\n{statement}\nprint(*sys.modules)").split()
    assert not EXTRAS & set(loaded)
    if statement == "import d2v.core":
        assert not {f"d2v.{package}" for package in PACKAGES if package != "core"} & set(loaded)


def test_everything_imports_together() -> None:
    """The bounds in pyproject.toml must admit only releases that live in one process."""
    out = run(
        "import torch, torchvision, torchaudio, tokenizers\n"
        "import d2v.core, d2v.vision, d2v.audio, d2v.text\n"
        "from torchvision.ops import nms\n"
        "assert torchaudio.transforms.MelSpectrogram()(torch.zeros(1, 400)).isfinite().all()\n"
        "print(nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5).tolist())"
    )
    assert out.strip() == "[0]"


# --- arrows -----------------------------------------------------------------------------------------------------------


def imports(file: Path, module: str) -> list[str]:
    """Dotted names of `d2v` that a file imports, types-only imports and those inside functions included."""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{source}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == "d2v"]


def wrong_arrows(root: Path) -> list[str]:
    wrong = []
    for package in PACKAGES:
        folder = package_folder(package, root)
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder).with_suffix("").parts
            module = ".".join(["d2v", package, *(part for part in inner if part != "__init__")])
            for name in imports(file, module):
                _, to, *rest = [*name.split("."), ""]
                if (package, to) == ("core", WITHOUT_TORCH):
                    continue
                if to not in {package, "core"}:
                    wrong.append(f"{module} imports {name}: {package} may import core only")
                elif package == "core" and inner[0] in FORBIDDEN and rest[0] in FORBIDDEN[inner[0]]:
                    wrong.append(f"{module} imports {name}: {inner[0]} must not know {rest[0]}")
                elif package == "core" and inner[0] in FORBIDDEN and rest[0] not in FORBIDDEN:
                    # Through d2v/core/__init__.py anything could be reached.
                    wrong.append(f"{module} imports {name}: import it from its module")
    return wrong


def test_arrows_point_one_way() -> None:
    assert wrong_arrows(ROOT) == []


def test_every_room_has_its_line() -> None:
    folder = package_folder("core")
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules - {"__init__", "__main__"} <= set(FORBIDDEN), "add to FORBIDDEN what the new module must not import"


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("d2v_core/d2v/core/masks/a.py", "from d2v.core.model.batch import Batch", "masks must not know model"),
        ("d2v_core/d2v/core/nn/__init__.py", "from ..model import Batch", "nn must not know model"),
        ("d2v_core/d2v/core/nn/a.py", "from ... import core", "import it from its module"),
        ("d2v_core/d2v/core/teacher/a.py", "from d2v.core import model", "teacher must not know model"),
        ("d2v_core/d2v/core/loss.py", "from d2v.core import Data2Vec", "import it from its module"),
        ("d2v_core/d2v/core/model/a.py", "def f():\n    import d2v.core.train.loop", "model must not know train"),
        ("d2v_core/d2v/core/files/a.py", "from d2v.core.cli import main", "files must not know cli"),
        ("d2v_core/d2v/core/train/a.py", "from d2v.vision import modality", "core may import core only"),
        ("d2v_core/d2v/core/__init__.py", "import d2v.text", "core may import core only"),
        ("d2v_vision/d2v/vision/a.py", "import d2v.audio.adapter", "vision may import core only"),
        ("d2v_vision/d2v/vision/a.py", "from d2v.core.model import Batch\nfrom .b import c", None),
        ("d2v_core/d2v/core/model/a.py", "from d2v.core.nn import X\nfrom d2v.core.version import __version__", None),
        ("d2v_core/d2v/core/__init__.py", "from d2v.core.train import fit", None),
    ],
)
def test_the_arrow_check_sees(tmp_path: Path, file: str, line: str, wrong: str | None) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    found = wrong_arrows(tmp_path)
    if wrong is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].endswith(wrong)


# --- what is built ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built without the network: the backend is in the extra `test`."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_the_four_portions(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    roots = [package_folder(package).parents[1] for package in PACKAGES]
    expected = {
        path.relative_to(root).as_posix()
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {f"d2v/{package}/py.typed" for package in PACKAGES} < expected
    assert "d2v/vision/shipped/fashion-mnist.npz" in expected
    assert {name for name in names if ".dist-info/" not in name} == expected
    for notice in ("LICENSE-fashion-mnist", "LICENSE-digits", "LICENSE-wordnet"):
        assert sum(".dist-info/licenses/" in name and notice in name for name in names) == 1
    assert f"\nVersion: {__version__}\n" in metadata


def test_the_sdist_holds_what_the_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    here = Path(__file__).relative_to(ROOT).as_posix()
    assert {here, "noxfile.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", ".ci/run"} <= names
    assert {"tools/make_fashion_mnist.py", "d2v_vision/d2v/vision/shipped/LICENSE-fashion-mnist"} <= names


# --- what the README promises -----------------------------------------------------------------------------------------


def commands(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("python3 -m venv")]


def test_ci_runs_the_command_of_the_readme() -> None:
    readme = commands((ROOT / "README.md").read_text())
    (tests,) = [command for command in readme if command.endswith("-m pytest")]
    assert '".[all,test]"' in tests
    assert commands((ROOT / ".ci/run").read_text()) == [tests]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111, ".ci/run must be executable"


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "\n## [Unreleased]\n" in text
