"""`d2v data`: a group of commands that modalities provide."""

from argparse import Namespace
from collections.abc import Sequence

from d2v.core.cli.command import Command, Parser, sentence
from d2v.core.modality import modalities


def add_arguments(parser: Parser) -> None:
    """Add a subcommand for each verb of each modality."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def look(arguments: Sequence[str]) -> None:
        # The verbs of a modality that cannot be loaded are unknown: show its error before calling the verb unknown.
        if arguments and not arguments[0].startswith("-") and arguments[0] not in verbs.choices:
            for error in modalities.broken().values():
                raise error

    parser.looks.append(look)
    for name in modalities.names():
        if name in modalities.broken():
            continue
        for verb, what in modalities.load(name).data_commands.items():
            one = verbs.add_parser(verb, help=f"{name}: {what.summary}", description=sentence(what.summary))
            what.add_arguments(one)
            one.set_defaults(verb=what)


def run(arguments: Namespace) -> None:
    """Run the subcommand."""
    arguments.verb.run(arguments)


COMMAND = Command(
    name="data",
    summary="inspect and prepare data",
    example="d2v data check-images photos",
    add_arguments=add_arguments,
    run=run,
)
