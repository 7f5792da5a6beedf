"""Run a command from its arguments; turn an error into one line and an exit code."""

import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from enum import IntEnum
from typing import TextIO

from d2v.core.cli import commands, completion, data, listing, models, quickstart, recipe
from d2v.core.cli.command import Command, Parser
from d2v.core.cli.habits import check_command
from d2v.core.files import ConfigError
from d2v.core.registry import UnknownNameError
from d2v.core.train import Interrupted
from d2v.core.version import __version__

COMMANDS: tuple[Command, ...] = (
    quickstart.COMMAND,
    listing.COMMAND,
    recipe.COMMAND,
    models.COMMAND,
    commands.PRETRAIN,
    commands.FINETUNE,
    commands.EVALUATE,
    commands.PREDICT,
    commands.PROBE,
    commands.EXTRACT,
    commands.PLOT,
    commands.CONVERT,
    data.COMMAND,
    commands.DOCTOR,
    completion.COMMAND,
)


class Exit(IntEnum):
    """Exit codes of the command; after another signal n, the exit code is 128 + n."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 128 + signal.SIGINT
    CLOSED_PIPE = 128 + 13  # SIGPIPE, which some systems lack
    TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `d2v`.

    Args:
        arguments: without the program's name; None = those of the process.

    Returns:
        The exit code, see `Exit`. A failure is one line on standard error; D2V_DEBUG=1 adds the traceback.

    Raises:
        SystemExit: with code 0 after `--help` and `--version`.

    >>> int(main(["recipe", "vision/smal"]))
    2
    """
    # Configure only the package's logger, so that callers from Python keep their logging settings.
    logger, handler = logging.getLogger("d2v"), _Messages()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    _show_any_name()
    try:
        try:
            known = _parser().parse_args(arguments)
            known.run(known)
        finally:
            sys.stdout.flush()
    except Interrupted as stop:
        print(f"d2v: {stop}", file=sys.stderr)
        return 128 + stop.signum if stop.signum else Exit.TERMINATED
    except KeyboardInterrupt:
        print("d2v: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe; keep Python from reporting it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.CLOSED_PIPE
    except Exception as error:  # every failure is one line; D2V_DEBUG=1 adds the traceback
        return _tell(error)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return Exit.OK


def _show_any_name() -> None:
    """Escape characters that the terminal's encoding lacks, as on standard error, so that no name ends a command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class _Messages(logging.StreamHandler[TextIO]):
    """Log lines on standard error; on a terminal, each overwrites the current progress line."""

    def format(self, record: logging.LogRecord) -> str:
        return ("\r\x1b[K" if self.stream.isatty() else "") + super().format(record)


def _parser() -> Parser:
    parser = Parser(
        prog="d2v",
        description="data2vec 2.0 and 1.0 for images, speech and text.",
        epilog="`d2v COMMAND --help` describes each command. In Python: d2v.core.pretrain(...).",
    )
    parser.add_argument("-V", "--version", action="version", version=f"d2v {__version__}")
    chosen = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add_to(chosen)
    parser.looks.append(lambda arguments: check_command(arguments, chosen.choices))
    return parser


def _tell(error: Exception) -> Exit:
    if os.environ.get("D2V_DEBUG") not in (None, "", "0"):
        traceback.print_exception(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    known = type(error).__module__.startswith("d2v.") or isinstance(error, OSError | ValueError | MemoryError)
    text = " ".join(lines) or type(error).__name__
    if not known:
        text = f"{type(error).__name__}: {text} (D2V_DEBUG=1 shows where)"
    print(f"d2v: {text}", file=sys.stderr)
    return Exit.USAGE if isinstance(error, ConfigError | UnknownNameError) else Exit.FAILED
