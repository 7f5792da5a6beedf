"""Commands in the docs: all of them name recipes and keys that exist; those of "your own images" are run, small."""

import re
import shlex
from pathlib import Path

import pytest

from d2v.core.cli import main
from d2v.core.cli.entry import COMMANDS
from d2v.core.jobs.evaluation import UseSettings
from d2v.core.jobs.extraction import ExtractSettings
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.recipes import parse_overrides, recipe_values
from d2v.core.recipes.schema import keys

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = {"probe": ProbeSettings, "extract": ExtractSettings, "evaluate": UseSettings, "predict": UseSettings}
SHORTER = {
    r"--per-class \d+": "--per-class 6",
    r"train\.max_steps=\d+": "train.max_steps=4",
    r"validation\.every=\d+": "validation.every=2",
    r"labels=\d+": "labels=20",
}


def commands(page: Path) -> list[str]:
    """Command lines after `$ ` in a page; a line that ends in a backslash goes on."""
    return re.findall(r"^\s*\$ (d2v .*)$", page.read_text().replace("\\\n", " "), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_what_exists(page: Path) -> None:
    known = {command.name for command in COMMANDS}
    for line in commands(page):
        _, name, *words = shlex.split(line, comments=True)
        assert name in known, line
        if name in ("pretrain", "finetune", "recipe"):
            kind, _ = recipe_values(words[0], parse_overrides(words[1:]))
            assert name in ("recipe", kind.command), line
        elif name in SETTINGS:
            data = {"kind": "vision"}
            exist = {key.name for key in keys(SETTINGS[name], {"data": data})}
            assert set(parse_overrides(words)) <= exist, line


def test_every_command_with_a_page_is_shown_there() -> None:
    for page in (ROOT / "docs/commands").glob("*.md"):
        assert any(line.split()[1] == page.stem for line in commands(page)), page.name


def test_your_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The page from folder to classifier, every command in its order."""
    lines = commands(ROOT / "docs/own-images.md")
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
