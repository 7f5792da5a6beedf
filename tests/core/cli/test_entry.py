"""The command `d2v`: readable help, one line for each failure, and exit codes."""

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from d2v.core import __version__
from d2v.core.cli import entry as entry_module
from d2v.core.cli import main
from d2v.core.cli.command import Command
from d2v.core.cli.entry import COMMANDS, Exit
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "'fly'"),
        (["pretrain"], "RECIPE"),
        (["list", "--loud"], "--loud"),
        (["data"], "VERB"),
        (["quickstart", "--out", "x", "--steps", "many"], "--steps"),
    ],
)
def test_wrong_usage_is_2_and_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("d2v: ")
    assert message in shown
    assert shown.count("\n") == 1


def test_the_exit_codes_are_those_of_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs/commands/index.md").read_text()
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)}
    assert table == {int(code) for code in Exit}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("unknown key 'x'"), 2, "unknown key 'x'"),
        (DataError("a folder\n  is empty"), 1, "a folder is empty"),
        (RunFolderError("no space"), 1, "no space"),
        (FileNotFoundError("nowhere"), 1, "nowhere"),
        (MemoryError(), 1, "MemoryError"),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug (D2V_DEBUG=1 shows where)"),
        (Interrupted(signal.SIGTERM, 7), 143, "stopped after 7 updates; continue with resume=true"),
        (Interrupted(signal.SIGINT, 7), 130, "stopped after 7 updates; continue with resume=true"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("D2V_DEBUG", raising=False)
    failing(monkeypatch, error)
    assert main(["fail"]) == code
    shown = capsys.readouterr()
    assert shown.err == f"d2v: {message}\n"
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


@pytest.mark.parametrize("arguments", [["recipe", "vision/base"], ["--help"]])
def test_a_closed_pipe_is_no_failure_of_ours(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "d2v", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    # argparse itself passes over a closed pipe while it prints help.
    assert done.returncode == (0 if arguments == ["--help"] else 128 + signal.SIGPIPE)
    assert done.stderr == b""


def test_a_full_disk_behind_the_output_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run([sys.executable, "-m", "d2v", "list"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)


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


@pytest.mark.parametrize(
    "given",
    [
        "optim.lr=fast",
        "train.batch_size=0",
        "optim.schedule.warmup=9000",
        "data.size=56",
        "mask.kind=blobs",
        "epochs=3",
        "seed",
        "resume=yes",
    ],
)
def test_recipe_checks_as_pretrain_does(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["data.path=digits", "out=run", "device=cpu"]
    code, said = main(["pretrain", "vision/small", *needed, given]), capsys.readouterr().err
    assert main(["recipe", "vision/small", given]) == code == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", said)


def test_recipe_prints_what_is_not_given_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "vision/small-finetune", "out=2023"]) == 0
    lines = [line.split("#")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert {"model: ???", "path: ???", "out: '2023'"} <= set(lines)
    (tmp_path / "mine.yaml").write_text("train: {batch_size: 4}\n")
    assert main(["recipe", str(tmp_path / "mine.yaml")]) == 0, (
        "of a recipe that is not complete all the rest is checked"
    )
    assert "max_steps: ???" in capsys.readouterr().out
    assert main(["recipe", str(tmp_path / "mine.yaml"), "train.batch_size=x"]) == 2


def test_unknown_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "vision/smal"]) == 2
    assert "did you mean 'vision/small'?" in capsys.readouterr().err
