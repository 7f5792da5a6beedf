"""What the docs show: code runs, commands name recipes and keys that exist, those of "your own images" are run, small.

A block of Python that cannot run here has a line `<!-- not run: REASON -->` above it, which no reader sees.
"""

import html
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sentences import reviews, write_csv

from d2v.core.cli import main
from d2v.core.cli.entry import COMMANDS
from d2v.core.files.kinds import roles
from d2v.core.jobs.extraction import ExtractSettings
from d2v.core.jobs.fine_tuned import UseSettings
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.modality import modalities
from d2v.core.recipes import parse_overrides, recipe_names, recipe_values
from d2v.core.recipes.schema import keys

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITTEN = [
    path for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).parts[0] not in ("_build", "_generated")
]
PAGES = [ROOT / "README.md", *WRITTEN]
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?```python\n(.*?)^```", re.M | re.S)
SETTINGS = {"probe": ProbeSettings, "extract": ExtractSettings, "evaluate": UseSettings, "predict": UseSettings}
SHORTER = {
    r"--per-class \d+": "--per-class 6",
    r"train\.max_steps=\d+": "train.max_steps=4",
    r"validation\.every=\d+": "validation.every=2",
    r"labels=\d+": "labels=20",
}


def commands(page: Path, *, until: str | None = None) -> list[str]:
    """Command lines after `$ ` in a page, before a heading; a line that ends in a backslash goes on."""
    text = page.read_text()
    assert until is None or until in text
    return re.findall(r"^\s*\$ (d2v .*)$", text.partition(until or "\0")[0].replace("\\\n", " "), re.M)


def tabled(page: Path) -> list[str]:
    """Whole command lines in the tables of the page that has them there."""
    rows = re.findall(r"^\|.*\|$", page.read_text(), re.M) if page.name == "migration.md" else []
    return [line for row in rows for line in re.findall(r"`(d2v [^`]+)`", row) if "..." not in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_what_exists(page: Path) -> None:
    known = {command.name for command in COMMANDS}
    printed: dict[str, str] = {}  # recipes by the files that earlier lines of the page write
    for line in [*commands(page), *tabled(page)]:
        _, name, *words = shlex.split(line, comments=True)
        assert name in known, line
        if name in ("pretrain", "finetune", "recipe"):
            words[0] = printed.get(words[0], words[0])
            if ">" in words:
                printed[words[-1]] = words[0]
                words = words[: words.index(">")]
            kind, _ = recipe_values(words[0], parse_overrides(words[1:]))
            assert name in ("recipe", kind.command), line
            printed |= {f"{word.removeprefix('out=')}/config.yaml": words[0] for word in words if word[:4] == "out="}
        elif name in SETTINGS:
            speech = any(word.startswith("task.decoder.") for word in words)
            task = {"kind": "audio/ctc", "decoder": {"kind": "beam"}} if speech else {}
            values = {"data": {"kind": "audio" if speech else "vision"}, "task": task}
            exist = {key.name for key in keys(SETTINGS[name], values)}
            assert set(parse_overrides(words)) <= exist, line


def test_every_command_has_a_page_and_is_shown_there() -> None:
    pages = {page.stem: page for page in (DOCS / "commands").glob("*.md") if page.stem != "index"}
    assert sorted(pages) == sorted(command.name for command in COMMANDS)
    for page in pages.values():
        assert any(line.split()[1] == page.stem for line in commands(page)), page.name


def toy_downloads(folder: Path) -> None:
    """The files of the page on published models, at toy size."""
    recorded = ROOT / "tests/parity/data"
    for name, toy in (
        ("base_imagenet_ft.pt", "image_cls.pt"),
        ("base_libri_960h.pt", "audio_ctc.pt"),
        ("nlp_base.pt", "text_pretrain.pt"),
        ("cola.pt", "text_cls.pt"),
    ):
        shutil.copy(recorded / "checkpoints" / toy, folder / name)
    images = folder / "data2vec-vision-base-ft1k"
    shutil.copytree(recorded / "hf/vision_cls", images)
    (images / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.5]}')


@pytest.fixture
def own_kinds() -> Iterator[None]:
    """Takes back the kinds that a page adds."""
    before = [(role, dict(role.own)) for role in roles()]
    yield
    for role, own in before:
        role.own.clear()
        role.own.update(own)


@pytest.mark.parametrize(
    "page", [page for page in WRITTEN if BLOCK.search(page.read_text())], ids=lambda page: page.name
)
@pytest.mark.usefixtures("own_kinds")
def test_code_runs(page: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page in their order, as a reader would paste them, in a folder with models and photos."""
    text = page.read_text()
    for name in ("run", "classifier", "photos"):
        shutil.copytree(made / name, tmp_path / name)
    if page.name == "published.md":
        toy_downloads(tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in BLOCK.finditer(text):
        if not block[1]:
            lines_above = text.count("\n", 0, block.start(2))
            exec(compile("\n" * lines_above + block[2], str(page), "exec"), namespace)


def test_the_front_page_shows_what_the_readme_has() -> None:
    front, readme = (DOCS / "index.md").read_text(), (ROOT / "README.md").read_text()
    shown = []
    for start, end in re.findall(r'^:start-after: "(.+)\\n"\n:end-before: "(.+)"$', front, re.M):
        after = readme.partition(f"{start}\n")[2]
        assert end.replace('\\"', '"') in after
        shown.append(after.partition(end.replace('\\"', '"'))[0].strip())
    introduction, step = shown
    assert introduction.splitlines()[-1].startswith("| published fine-tuned files |")
    assert step.startswith("```python")
    assert step.endswith("```")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What writes the generated pages."""
    monkeypatch.syspath_prepend(DOCS / "_ext")
    return importlib.import_module("site_pages")


def test_generated_pages_hold_every_recipe_key_and_name(site: ModuleType) -> None:
    pages = dict(site.pages())
    rows = {key.rpartition(".")[2] for key in re.findall(r"^\| `([\w.<>]+)` \|", pages["keys.txt"], re.M)}
    for name in recipe_names():
        assert f"\n## {name}\n" in f"\n{pages['recipes.txt']}"
        kind, values = recipe_values(name)
        given = {key.name.rpartition(".")[2] for key in keys(kind, values)} - set(modalities.names()) - {"kind"}
        assert given <= rows
    for package in site.public_packages():
        for name in importlib.import_module(package).__all__:
            home = site.homes()[f"{package}.{name}"]
            assert f":: {home}" in pages[f"api/{home.rpartition('.')[0]}.md"]


def test_help_is_the_commands_own(site: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    section = site.help_section("data")
    assert "usage: d2v data [-h] VERB" in section
    assert "usage: d2v data check-images" in section
    assert capfd.readouterr().out == ""


ELSEWHERE = re.compile(
    r"""<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"|url\(["']?https?:|@import"""
)


def test_the_check_for_addresses_sees() -> None:
    assert ELSEWHERE.search('<script async src="https://example.org/x.js">')
    assert ELSEWHERE.search("background: url('https://example.org/x.png')")
    assert not ELSEWHERE.search('<a href="https://arxiv.org/abs/2212.07525"><img src="_static/x.png">')


@pytest.mark.long
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-E", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in tmp_path.glob("site/**/*.html"):
        found = ELSEWHERE.search(page.read_text())
        assert not found, f"{page.name}: {found and found[0]}"
    for command_ in COMMANDS:
        assert f"usage: d2v {command_.name}" in html.unescape(
            re.sub("<[^>]+>", "", (tmp_path / f"site/commands/{command_.name}.html").read_text())
        )


def test_your_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The page from folder to classifier, every command in its order; those for a GPU are test_photographs.py's."""
    lines = commands(ROOT / "docs/own-images.md", until="\n## Photographs on a GPU\n")
    assert [line.split()[1] for line in lines] == [
        "data",
        "data",
        "pretrain",
        "probe",
        "finetune",
        "evaluate",
        "predict",
        "extract",
    ]
    monkeypatch.chdir(tmp_path)
    for line in lines:
        for pattern, short in SHORTER.items():
            line = re.sub(pattern, short, line)
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "probe":
            words.append("labels=20")
        assert main(words) == 0, f"{line}: {capfd.readouterr().err}"
    assert (tmp_path / "predictions.csv").read_text().startswith("file,class,")
    assert (tmp_path / "features.safetensors").exists()


def test_your_own_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The page from recordings to word error rates, with the five real sentences; published recipes need a GPU."""
    lines = [line for line in commands(ROOT / "docs/own-recordings.md") if "audio/base" not in line]
    assert [line.split()[1] for line in lines] == ["pretrain", "probe", "finetune", "evaluate", "predict", "extract"]
    recordings = Path(__file__).parents[1] / "audio/data/librivox"
    shutil.copytree(recordings, tmp_path / "speech")
    rows = (recordings / "librivox.csv").read_text().splitlines()
    table = ["path,text,split", *(f"speech/{row},{'test' if n == 4 else 'train'}" for n, row in enumerate(rows[1:]))]
    (tmp_path / "transcribed.csv").write_text("\n".join(table) + "\n")
    monkeypatch.chdir(tmp_path)
    shorter = {
        "pretrain": ["train.max_steps=4", "data.max_samples=16000"],
        "finetune": ["train.max_steps=4", "train.batch_size=2"],
        "probe": ["sequences.epochs=1", "sequences.heads=1"],
    }
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert main([*words, *shorter.get(words[0], [])]) == 0, f"{line}: {capfd.readouterr().err}"
    assert '"words"' in (tmp_path / "words.jsonl").read_text()
    assert (tmp_path / "features.safetensors").exists()


def test_your_own_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The page from text files to a classifier, with generated reviews; GLUE's files need a network."""
    lines = commands(ROOT / "docs/own-text.md")
    called = ["pretrain", "finetune", "evaluate", "predict", "probe", "extract", "extract"]
    assert [line.split()[1] for line in lines] == called
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("".join(f"{text}\n" for text, _ in reviews(600, seed=1)))
    write_csv(tmp_path / "reviews.csv", reviews(80))
    (tmp_path / "new.txt").write_text("a moving film\nthe plot goes nowhere\n")
    monkeypatch.chdir(tmp_path)
    small = ["model.student.adapters.text.vocabulary_size=300", "data.vocabulary_size=300"]
    shorter = {
        "pretrain": ["train.max_steps=2", "train.batch_size=4", *small],
        "finetune": ["train.max_steps=4", "train.batch_size=4", "validation.every=4"],
    }
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert main([*words, *shorter.get(words[0], [])]) == 0, f"{line}: {capfd.readouterr().err}"
    assert (tmp_path / "predictions.csv").read_text().startswith("file,class,")
    assert "new.txt:2," in (tmp_path / "predictions.csv").read_text()
    assert (tmp_path / "tokens.safetensors").exists()
