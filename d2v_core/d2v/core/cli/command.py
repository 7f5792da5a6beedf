"""A command, and a parser that builds its help on request."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

from attrs import frozen

from d2v.core.files import ConfigError
from d2v.core.train.ranks import connected, started_processes


class Parser(argparse.ArgumentParser):
    """A parser with steps that complete its help on request, since they are too slow for every start.

    `words` has, by the name of an argument, a function that lists the words that completion offers for it. They are not
    `choices`: the command itself decides which words it takes, with better messages than argparse's.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})
        self.completions: list[Callable[[], None]] = []
        self.looks: list[Callable[[Sequence[str]], None]] = []
        self.words: dict[str, Callable[[], Iterable[str]]] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; hooks may refuse them first, with better messages than argparse's."""
        for look in self.looks:
            look(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments in one line, like any other error.

        Raises:
            ConfigError: with argparse's message.
        """
        raise ConfigError(f"{message}; see `{self.prog} --help`")

    def prepend(self, text: str) -> None:
        """Put a text before the epilog."""
        self.epilog = f"{text}\n{self.epilog or ''}"

    def format_help(self) -> str:
        """The text of `--help`."""
        while self.completions:
            self.completions.pop(0)()
        paragraphs = (self.description or "").split("\n\n")
        self.description = "\n\n".join(textwrap.fill(" ".join(one.split()), help_width()) for one in paragraphs)
        return super().format_help()


@frozen(kw_only=True)
class Command:
    """A command.

    Args:
        name: name on the command line.
        summary: one line for `d2v --help`.
        details: text below the usage in `d2v NAME --help`, in addition to that of `add_arguments`.
        example: command lines that work.
        add_arguments: adds its arguments to a parser, and the steps that complete their help.
        run: runs the command; an error becomes one line and an exit code.
        shared: whether the processes of torchrun share its work; other commands run in one process.
        takes: its `KEY=VALUE` arguments, an object with the class of `settings`; None = no such arguments.
    """

    name: str
    summary: str
    details: str = ""
    example: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], None]
    shared: bool = False
    takes: Any = None

    def start(self, arguments: argparse.Namespace) -> None:
        """Run the command, in a group with the other processes of torchrun if they share its work.

        Raises:
            ConfigError: if torchrun started several processes of a command that runs in one.
        """
        if not self.shared and (workers := started_processes()) > 1:
            raise ConfigError(f"`{self.name}` runs in one process, and torchrun started {workers}; start it without")
        with connected() if self.shared else nullcontext():
            self.run(arguments)

    def add_to(self, commands: "argparse._SubParsersAction[Parser]") -> None:
        """Add the command to the parser of `d2v`."""
        text = sentence(self.summary)
        parser = commands.add_parser(
            self.name,
            help=self.summary,
            description=f"{text}\n\n{self.details}" if self.details else text,
            epilog="example:\n" + "".join(f"  {line}\n" for line in self.example.splitlines()),
        )
        self.add_arguments(parser)
        parser.set_defaults(run=self.start)


def sentence(summary: str) -> str:
    """A summary as the first sentence of a help text."""
    return f"{summary[0].upper()}{summary[1:]}."


def help_width() -> int:
    """Width of a help text: that of the terminal, as in argparse, with at most 100 characters."""
    return min(max(shutil.get_terminal_size().columns - 2, 60), 100)
