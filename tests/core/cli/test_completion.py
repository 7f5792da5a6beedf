"""Completion: asked as each shell asks, fast, and current after an installation."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from d2v import _completion
from d2v.core.cli import main

BASH = r"""
. "$1"
COMP_LINE="$2"; COMP_POINT=${#2}; COMP_TYPE=9
_python_argcomplete d2v
printf '%s\n' "${COMPREPLY[@]}"
"""
ZSH = r"""
compdef() { :; }
_describe() { print -l -- "${completions[@]}" }
. "$1"
words=(d2v); BUFFER="$2"; CURSOR=${#2}
_python_argcomplete d2v
"""
FISH = 'source $argv[1]; complete -C "$argv[2]"'
SHELLS = {
    "bash": ["bash", "--norc", "-c", BASH, "ask"],
    "zsh": ["zsh", "-f", "-c", ZSH, "ask"],
    "fish": ["fish", "--no-config", "-c", FISH],
}

Ask = Callable[[str, str], list[str]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """What a shell offers for a line, in a folder with `photos/`, `notes.txt` and `mine.yaml`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = tmp_path / "here"
    (here / "photos").mkdir(parents=True)
    for name in ("notes.txt", "mine.yaml"):
        (here / name).write_text("")
    monkeypatch.chdir(here)
    command = tmp_path / "bin/d2v"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m d2v "$@"\n')
    command.chmod(0o755)
    # Completion fails if it imports torch.
    fake = tmp_path / "fake/torch.py"
    fake.parent.mkdir()
    fake.write_text("raise SystemExit(1)\n")
    paths = {
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{fake.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }

    def offered(shell: str, line: str) -> list[str]:
        if shutil.which(shell) is None:
            pytest.skip(f"no {shell} here")
        assert main(["completion", shell]) == 0
        _completion.table()
        script = tmp_path / f"script.{shell}"
        script.write_text(capsys.readouterr().out)
        asked = [*SHELLS[shell], str(script), line]
        done = subprocess.run(asked, env={**os.environ, **paths}, capture_output=True, text=True, check=False)
        # zsh has `word:description`, fish a tab between them, and bash a blank behind the only one.
        return sorted(
            {one.split("\t")[0].split(":")[0].strip() for one in done.stdout.replace("\v", "\n").splitlines()}
        )

    return offered


@pytest.mark.usefixtures("built_in_data")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("d2v pre", ["predict", "pretrain"]),
        ("d2v finetune vision/", ["vision/finetune", "vision/small-finetune"]),
        ("d2v finetune m", ["mine.yaml"]),
        ("d2v finetune p", ["photos/"]),
        ("d2v pretrain vision/small train.max_st", ["train.max_steps="]),
        ("d2v probe weights=t", ["teacher"]),
        ("d2v extract data=p", ["photos/"]),
    ],
)
def test_each_shell_completes(shell: str, line: str, offers: list[str], ask: Ask) -> None:
    found = ask(shell, line)
    if shell != "bash":  # which takes = for the end of a word
        offers = [f"{line.split()[-1].partition('=')[0]}={one}" if "=" in line else one for one in offers]
    assert found == offers


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("d2v recipe vision/s", ["vision/small", "vision/small-finetune"]),
        ("d2v pretrain vision/small optim.schedule.k", ["optim.schedule.kind="]),
        ("d2v pretrain vision/small optim.schedule.kind=c", ["cosine"]),
        (
            "d2v pretrain mine.yaml out=",
            ["mine.yaml", "notes.txt", "photos/"],
        ),
        ("d2v pretrain vision/small resume=", ["false", "true"]),
        ("d2v pretrain vision/small seed=1 see", [""]),
        ("d2v data ch", ["check-images", "check-recordings"]),
        ("d2v plot no", ["notes.txt"]),
        ("d2v quickstart --st", ["--steps"]),
        ("d2v completion ", ["bash", "fish", "zsh"]),
        ("d2v convert run there --to h", ["hugging-face"]),
        ("d2v convert run there --to ", ["d2v", "hugging-face", "onnx", "timm", "torch-export"]),
        ("d2v convert run there --pretrained no", ["notes.txt"]),
        ("d2v quickstart --modality ", ["vision"]),
        ("d2v models --modality ", ["audio", "text", "vision"]),
        ("d2v models --size Base --modality t", ["text"]),
        ("d2v models --modality aud --fine-tuning n", ["none"]),
        ("d2v models data2vec2/nlp", ["data2vec2/nlp_base"]),
    ],
)
def test_what_there_is_to_complete(line: str, offers: list[str], ask: Ask) -> None:
    assert ask("bash", line) == offers


def test_keys_are_offered_section_by_section() -> None:
    keys = {"out": "path", "a.b.c": None, "a.b.d": ["x", "y"], "e.f": None}
    assert list(_completion.arguments("", keys)) == ["out=", "a.", "e."]
    assert list(_completion.arguments("a", keys)) == ["a.b.c=", "a.b.d="]
    assert list(_completion.arguments("e.", keys)) == ["e.f="]
    assert list(_completion.arguments("a.b.d=", keys)) == ["a.b.d=x", "a.b.d=y"]
    assert list(_completion.arguments("a.b.c=", keys)) == []
    assert list(_completion.arguments("z", keys)) == []


def test_a_home_stays_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    (tmp_path / ".hidden").mkdir()
    assert list(_completion.files("~/")) == ["~/photos/"]
    assert list(_completion.files("~/.h")) == ["~/.hidden/"]
    assert list(_completion.files("nowhere/")) == []


def test_the_table_is_made_anew_after_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = _completion.table()
    assert "vision/small" in made["recipes"]
    file = _completion.table_file()
    assert json.loads(file.read_text()) == made
    file.write_text(json.dumps({**made, "recipes": {}}))
    assert _completion.table()["recipes"] == {}, "it is read, not made, while nothing has changed"
    site = tmp_path / "site"
    (site / "new-1.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(site))
    assert _completion.table() == {**made, "installed": _completion.installed()}
    file.write_text("half a ta")
    assert "pretrain" in _completion.table()["commands"]


def test_a_cache_that_cannot_be_written_costs_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert "pretrain" in _completion.table()["commands"]


def test_an_interruption_while_packages_are_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt\n")
    paths = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "d2v", "list"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "d2v: interrupted\n")
