"""`d2v doctor`: what is installed, what there is to run on, and whether it works."""

from argparse import Namespace

from d2v.core.cli.command import Command, Parser
from d2v.core.jobs import checkup


def run(arguments: Namespace) -> None:
    """Do it."""
    del arguments
    checkup(tell=lambda line: print(line, flush=True)).require()


def _no_arguments(parser: Parser) -> None:
    del parser


COMMAND = Command(
    name="doctor",
    summary="report versions and devices, and check that training works here",
    details="""The checks take seconds: packages of the extras, masks, a training step on the device that `auto`
picks, a checkpoint, a resumed run. Exit code 1 if one fails; an extra that is not installed is no failure.""",
    example="d2v doctor",
    add_arguments=_no_arguments,
    run=run,
)
