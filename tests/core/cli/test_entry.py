"""The command `d2v`: help that a person reads, one line a failure, and exit codes."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from d2v.core import __version__
from d2v.core.cli import entry as entry_module
from d2v.core.cli import main
from d2v.core.cli.command import Command
from d2v.core.cli.entry import COMMANDS
from d2v.core.data import DataError
from d2v.core.files import ConfigError
from d2v.core.train import Interrupted, RunFolderError

NAMES = [command.name for command in COMMANDS]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `d2v fail` raise this."""

    def run(arguments: argparse.Namespace) -> None:
        raise error

    command = Command(name="fail", summary="fail", example="d2v fail", add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(entry_module, "COMMANDS", (command,))


@pytest.mark.parametrize("name", NAMES)
def test_help_is_readable_and_shows_an_example(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    assert "example:" in lines
    assert any(line.startswith(f"  d2v {name}") for line in lines[lines.index("example:") :])


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"    {name} " in shown for name in NAMES)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, f"d2v {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["pretrain"], ["list", "--loud"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("unknown key 'x'"), 2, "unknown key 'x'"),
        (DataError("a folder\n  is empty"), 1, "a folder is empty"),
        (RunFolderError("no space"), 1, "no space"),
        (FileNotFoundError("nowhere"), 1, "nowhere"),
        (MemoryError(), 1, "MemoryError"),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug (D2V_DEBUG=1 shows where)"),
        (Interrupted(signal.SIGTERM, 7), 143, "stopped after 7 updates; resume=true goes on from there"),
        (Interrupted(signal.SIGINT, 7), 130, "stopped after 7 updates; resume=true goes on from there"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("D2V_DEBUG", raising=False)
    failing(monkeypatch, error)
    assert main(["fail"]) == code
    shown = capsys.readouterr()
    assert shown.err == f"d2v: {told}\n"
    assert shown.out == ""


def test_a_traceback_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("D2V_DEBUG", "1")
    failing(monkeypatch, DataError("empty"))
    assert main(["fail"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert shown.endswith("d2v: empty\n")


def test_the_installed_command_and_the_module_are_the_same() -> None:
    for command in ([str(Path(sys.executable).with_name("d2v"))], [sys.executable, "-m", "d2v"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"d2v {__version__}\n"


def test_a_closed_pipe_is_no_failure_of_ours() -> None:
    command = [sys.executable, "-m", "d2v", "recipe", "vision/base"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""


def test_list_names_recipes_and_modalities(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in ("vision/base", "vision/small", "  audio ", "vision/classification"):
        assert name in shown


def test_recipe_prints_with_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "vision/base", "optim.lr=0.25"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# d2v pretrain vision/base KEY=VALUE ..."
    assert any(line.split("#")[0].strip() == "lr: 0.25" for line in lines)


def test_unknown_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "vision/smal"]) == 2
    assert "did you mean 'vision/small'?" in capsys.readouterr().err
