"""`d2v plot`: pictures of runs."""

from argparse import Namespace

from d2v.core.cli.command import Command, Parser
from d2v.core.jobs import plot


def run(arguments: Namespace) -> None:
    """Do it."""
    done = plot(arguments.runs, out=arguments.out, data=arguments.data, images=arguments.images, seed=arguments.seed)
    for line in (*done.files, *done.notes):
        print(line)


def _add_arguments(parser: Parser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs; masks and features are the first's")
    parser.add_argument("--out", metavar="FOLDER", help="where pictures go (default: plots/ in the first run)")
    parser.add_argument("--data", metavar="PATH", help="samples to show (default: the data of the first run)")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="so many samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which samples (default: %(default)s)")


COMMAND = Command(
    name="plot",
    summary="draw learning curves, masks and features of runs",
    details="""Writes, as .svg for pages (light and dark) and as .png:
curves: the metrics of all runs; masks: samples that were not trained on, as the student sees them;
features: the patch features of the trained and of the untrained network, their first three principal
components as red, green and blue. Needs the extra d2v[plot].""",
    example="d2v plot run\nd2v plot run other-run --out pictures --images 6",
    add_arguments=_add_arguments,
    run=run,
)
