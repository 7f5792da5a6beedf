"""What a command is, and the two forms of arguments that commands take."""

import argparse
from collections.abc import Callable

from attrs import frozen

Parser = argparse.ArgumentParser


@frozen(kw_only=True)
class Command:
    """A command.

    Args:
        name: what is typed.
        summary: one line for `d2v --help`.
        details: what `d2v NAME --help` says below the usage; fits a screen with all else.
        example: command lines that work.
        add_arguments: puts its arguments on a parser.
        run: does it; an error that it raises becomes one line and an exit code.
    """

    name: str
    summary: str
    details: str = ""
    example: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], None]

    def add_to(self, commands: "argparse._SubParsersAction[Parser]") -> None:
        """Make it known to the parser of `d2v`."""
        text = f"{self.summary[0].upper()}{self.summary[1:]}."
        parser = commands.add_parser(
            self.name,
            help=self.summary,
            description=f"{text}\n\n{self.details}" if self.details else text,
            epilog="example:\n" + "".join(f"  {line}\n" for line in self.example.splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_arguments(parser)
        parser.set_defaults(run=self.run)


def takes_recipe(parser: Parser) -> None:
    """Arguments of commands that begin with a recipe."""
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `d2v list` shows, or a YAML file")
    takes_keys(parser)


def takes_keys(parser: Parser) -> None:
    """Arguments of commands that take keys and nothing else."""
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="dotted keys; values are YAML")
