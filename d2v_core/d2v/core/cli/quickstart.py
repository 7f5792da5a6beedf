"""`d2v quickstart`: the quickstart of a modality, with the arguments of its call."""

from argparse import Namespace
from pathlib import Path

from d2v.core.cli.arguments import Options, said_of
from d2v.core.cli.command import Command, Parser
from d2v.core.modality import Quickstart, find_quickstart

_CHOICE = Options(find_quickstart)
_OPTIONS = Options(Quickstart, leave_out=("progress",))
_SUMMARY, _DETAILS = said_of(Quickstart.__call__)


def _add_arguments(parser: Parser) -> None:
    _OPTIONS(parser)
    _CHOICE(parser)


def run(arguments: Namespace) -> None:
    """Do it."""
    report = find_quickstart(**_CHOICE.values(arguments))(**_OPTIONS.values(arguments))
    print(report["verdict"])
    for name in ("report.html", "report.json"):
        print(Path(arguments.out) / name)


COMMAND = Command(
    name="quickstart",
    summary=_SUMMARY,
    details=_DETAILS,
    example="d2v quickstart --out out\nd2v quickstart --out again --steps 9000 --seed 1",
    add_arguments=_add_arguments,
    run=run,
)
