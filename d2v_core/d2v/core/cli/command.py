"""What a command is, and a parser whose help is completed when somebody asks for it."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from attrs import frozen

from d2v.core.files import ConfigError


class Parser(argparse.ArgumentParser):
    """A parser with steps that complete its help: what costs time is read then, and not at every start."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})
        self.completions: list[Callable[[], None]] = []
        self.looks: list[Callable[[Sequence[str]], None]] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What the arguments say; whoever looks at them first may refuse them in better words than argparse has."""
        for look in self.looks:
            look(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments, in one line as any other mistake.

        Raises:
            ConfigError: with what argparse found.
        """
        raise ConfigError(f"{message}; see `{self.prog} --help`")

    def prepend(self, text: str) -> None:
        """Put a text in front of what stands below the arguments."""
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
        name: what is typed.
        summary: one line for `d2v --help`.
        details: what `d2v NAME --help` says below the usage, beside what `add_arguments` adds.
        example: command lines that work.
        add_arguments: puts its arguments on a parser, and what completes their help.
        run: does it; an error that it raises becomes one line and an exit code.
        takes: its `KEY=VALUE` arguments, an object with the class of `settings`; None = it has none.
    """

    name: str
    summary: str
    details: str = ""
    example: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], None]
    takes: Any = None

    def add_to(self, commands: "argparse._SubParsersAction[Parser]") -> None:
        """Make it known to the parser of `d2v`."""
        text = f"{self.summary[0].upper()}{self.summary[1:]}."
        parser = commands.add_parser(
            self.name,
            help=self.summary,
            description=f"{text}\n\n{self.details}" if self.details else text,
            epilog="example:\n" + "".join(f"  {line}\n" for line in self.example.splitlines()),
        )
        self.add_arguments(parser)
        parser.set_defaults(run=self.run)


def help_width() -> int:
    """Columns of a help text: those of the terminal, as argparse counts them, but no line too long to read."""
    return min(max(shutil.get_terminal_size().columns - 2, 60), 100)
