"""Sessions for development: `nox -l` lists them, `nox -s NAME` runs one, `nox` runs those with a star.

An environment with torch takes gigabytes, so most sessions share one: `env` creates it, the others name it in
`requires`. pip's cache shares downloads. The requirements and Python versions are read from pyproject.toml.
"""

import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
# Skip Python versions that are not installed, with a message, in CI too.
nox.options.error_on_missing_interpreters = False

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
OLDEST = PYTHONS[0]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
MODALITIES = list(PYPROJECT["project"]["entry-points"]["d2v.modalities"])
SHARED = f"env-{OLDEST}"
# Instructions for oneDNN and ATen: wider ones round bf16 products differently.
PLAIN_CPU = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}


@nox.session(python=PYTHONS, default=False)
def env(session: nox.Session) -> None:
    """Create the environment that the other sessions share: all extras, editable."""
    session.install("-e", ".[dev]")


def shared_python(session: nox.Session, version: str = OLDEST) -> str:
    """Return the interpreter of the shared environment; skip the session with a reason if `env` found no Python."""
    environment = session.cache_dir.parent / f"env-{version.replace('.', '-')}"
    folder = "Scripts" if sys.platform == "win32" else "bin"
    python = environment.resolve() / folder / "python"
    if not python.exists() and not python.with_suffix(".exe").exists():
        session.skip(f"Python {version} is not installed")
    return str(python)


def run(session: nox.Session, *command: str, version: str = OLDEST, env: dict[str, str] | None = None) -> None:
    """Run `python COMMAND` in the shared environment, with the arguments after `--` on the command line."""
    session.run(shared_python(session, version), *command, *session.posargs, env=env, external=True)


@nox.session(python=PYTHONS, requires=["env-{python}"])
def tests(session: nox.Session) -> None:
    """Run the default suite, as .ci/run does."""
    # Nox runs a session without an environment for only one Python, so this session has one and leaves it empty.
    run(session, "-m", "pytest", version=str(session.python))


@nox.session(venv_backend="none", requires=[SHARED])
def plain_cpu(session: nox.Session) -> None:
    """Run the default suite as on a CPU with only AVX2 and one thread: results must not depend on the hardware."""
    run(session, "-m", "pytest", env=PLAIN_CPU)


@nox.session(venv_backend="none", requires=[SHARED])
def search(session: nox.Session) -> None:
    """Run the default suite with new random examples for its property tests; a failure prints how to repeat it."""
    run(session, "-m", "pytest", env={"HYPOTHESIS_PROFILE": "search"})


PACKAGES = {"vision": ["torchvision", "PIL"], "audio": ["torchaudio", "soundfile"], "text": ["tokenizers"]}
ABSENT = """
import importlib.util, sys
present = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
sys.exit(f"this environment contains {present} of another extra" if present else 0)
"""


@nox.session(python=OLDEST, default=False)
@nox.parametrize("modality", [nox.param(name, id=name) for name in ["core", *MODALITIES]])
def only(session: nox.Session, modality: str) -> None:
    """Run the tests of core and of one modality with only its extra installed; `core`: with no extra."""
    extras = ["test-core"] if modality == "core" else [modality, "test-core"]
    session.install("-e", f".[{','.join(extras)}]")
    # Fail if a dependency installs a package of another extra.
    others = [module for name, modules in PACKAGES.items() if name != modality for module in modules]
    session.run("python", "-c", ABSENT, *others)
    folders = [f"tests/{name}" for name in dict.fromkeys(["core", modality])]
    packages = [f"d2v_{name}" for name in dict.fromkeys(["core", modality])]
    ignored = "--ignore=d2v_core/d2v/hugging_face.py"  # needs an extra of its own
    session.run(
        "python",
        "-m",
        "pytest",
        ignored,
        *(path for path in folders + packages if Path(path).is_dir()),
        *session.posargs,
    )


@nox.session(python=OLDEST, default=False)
def trackers(session: nox.Session) -> None:
    """Run the tests that need Weights & Biases, MLflow or a notebook, with these packages; nothing is sent."""
    session.install("-e", ".[test-trackers]")
    session.run("python", "-m", "pytest", "tests/core/train/test_trackers.py", "tests/core/train/test_progress.py")


@nox.session(python=OLDEST, default=False)
def decode(session: nox.Session) -> None:
    """Run the tests of beam search with its packages; kenlm is compiled, which takes minutes and a C++ compiler."""
    session.install("-e", ".[decode,test-core]")
    session.run("python", "tests/parity/check.py", "tests/parity/data/decoding")
    session.run(
        "python", "-m", "pytest", "tests/audio/decoding", "tests/parity/test_decoding.py", "d2v_audio", *session.posargs
    )


@nox.session(python=OLDEST, default=False)
def datasets(session: nox.Session) -> None:
    """Run the tests of data sets of Hugging Face with its package, from folders; the hub is not asked."""
    session.install("-e", ".[datasets,test-core]")
    session.run("python", "-m", "pytest", "tests/text/test_public_sets.py", *session.posargs)


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*(requirement for requirement in EXTRAS["dev"] if requirement.startswith("ruff")))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_backend="none", requires=[SHARED])
def typecheck(session: nox.Session) -> None:
    """Check types strictly: the library, calls of it as users write them, and the site's extensions."""
    run(session, "-m", "mypy")
    session.run(shared_python(session), "-m", "mypy", "tests/typed_calls.py", external=True)
    pages = sorted(str(path) for path in Path("docs/_ext").glob("*.py"))
    session.run(shared_python(session), "-m", "mypy", *pages, env={"MYPYPATH": "docs/_ext"}, external=True)


@nox.session(venv_backend="none", requires=[SHARED])
def parity(session: nox.Session) -> None:
    """Compare with the recorded numbers of the original, in tests/parity/data."""
    folders = sorted({str(path.parent) for path in Path("tests/parity/data").rglob("io.safetensors")})
    if not folders:
        session.error("tests/parity/data contains no case to compare with")
    run(session, "tests/parity/check.py", *folders)
    run(session, "-m", "pytest", "tests/parity")


@nox.session(venv_backend="none", requires=[SHARED], name="compile")
def compile_(session: nox.Session) -> None:
    """Run the tests that compile with inductor; they need a C++ compiler."""
    run(session, "-m", "pytest", "-m", "inductor")


@nox.session(venv_backend="none", requires=[SHARED], name="long")
def long_(session: nox.Session) -> None:
    """Run the tests that take minutes."""
    run(session, "-m", "pytest", "-m", "long")


@nox.session(venv_backend="none", requires=[SHARED])
def fuzz(session: nox.Session) -> None:
    """Read thousands of damaged model files, FUZZ_CASES in number; FUZZ_SEED gives other ones."""
    run(session, "-m", "pytest", "-n0", "-m", "fuzz", "tests/core/foreign/test_fuzzed_files.py")


@nox.session(venv_backend="none", requires=[SHARED], default=False)
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device; without one, each is skipped with a reason."""
    run(session, "-m", "pytest", "-n0", "-m", "gpu", "tests")


@nox.session(venv_backend="none", requires=[SHARED])
def docs(session: nox.Session) -> None:
    """Build the documentation site into docs/_build/html, strictly; it needs no network."""
    run(session, "-m", "sphinx", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build/html")


@nox.session(venv_backend="none", requires=[SHARED], default=False)
def benchmarks(session: nox.Session) -> None:
    """Run the benchmarks that need no accelerator."""
    run(session, "benchmarks/import_time.py")


@nox.session(python=OLDEST, default=False)
def build(session: nox.Session) -> None:
    """Build wheel and sdist, and smoke-test each in an environment without the source tree."""
    session.install("build")
    dist = Path(session.create_tmp()) / "dist"
    session.run("python", "-m", "build", "--outdir", str(dist))
    for pattern in ("*.whl", "*.tar.gz"):
        newest = max(dist.glob(pattern), key=lambda path: path.stat().st_mtime)
        # --force-reinstall with --no-deps replaces only d2v itself; the gigabytes of dependencies stay.
        session.install(str(newest))
        session.install("--force-reinstall", "--no-deps", str(newest))
        smoke = str(Path("tests/integration/smoke.py").resolve())
        with session.chdir(session.create_tmp()):  # outside the source tree, so only the installed package is found
            session.run("python", "-I", smoke)


@nox.session(python=OLDEST, default=False)
def readme(session: nox.Session) -> None:
    """Run the README's commands, unchanged, in a fresh clone."""
    clone = Path(session.create_tmp()) / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    session.run("git", "clone", "--quiet", ".", str(clone), external=True)
    commands = [line.strip() for line in Path("README.md").read_text().splitlines() if line.startswith("    python3")]
    if len(commands) != 2:
        session.error(f"the README has {len(commands)} commands, but two are expected")
    with session.chdir(clone):
        for command in commands:
            session.run("bash", "-c", command, external=True)
