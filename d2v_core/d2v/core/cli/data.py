"""`d2v data`: a group of commands that modalities bring."""

from argparse import Namespace

from d2v.core.cli.command import Command, Parser
from d2v.core.modality import modalities


def add_arguments(parser: Parser) -> None:
    """A command for each verb of each modality."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name in modalities.names():
        if name in modalities.broken():
            continue
        for verb, what in modalities.load(name).verbs.items():
            one = verbs.add_parser(verb, help=f"{name}: {what.summary}", description=what.summary)
            what.add_arguments(one)
            one.set_defaults(verb=what)


def run(arguments: Namespace) -> None:
    """Do what the verb says."""
    arguments.verb.run(arguments)


COMMAND = Command(
    name="data",
    summary="look at and prepare data, one command a task",
    example="d2v data check-images photos",
    add_arguments=add_arguments,
    run=run,
)
