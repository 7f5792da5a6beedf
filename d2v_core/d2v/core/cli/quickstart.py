"""`d2v quickstart`: what the method does, in minutes, on a page."""

from argparse import Namespace
from pathlib import Path

from d2v.core.cli.command import Command, Parser
from d2v.core.modality import find_quickstart


def run(arguments: Namespace) -> None:
    """Do it."""
    report = find_quickstart(arguments.modality)(
        arguments.out,
        minutes=arguments.minutes,
        steps=arguments.steps,
        seed=arguments.seed,
        device=arguments.device,
    )
    print(report["verdict"])
    for name in ("report.html", "report.json"):
        print(Path(arguments.out) / name)


def _add_arguments(parser: Parser) -> None:
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder to make: the page, the figures, the run")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="N", help="for everything together (default: 5)")
    length.add_argument("--steps", type=int, metavar="N", help="so many updates instead: the same run again")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (default: %(default)s)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto = cuda, mps or cpu, the first there is")
    parser.add_argument("--modality", metavar="NAME", help="default: the first that has a quickstart")


COMMAND = Command(
    name="quickstart",
    summary="see in five minutes what data2vec learns",
    details="""Pretrains a small model on images that ship with the package, without labels, and measures what it
has learned: by simple classifiers on its features, beside raw pixels and the untrained network, and by
fine-tuning on 100 labels, beside the same network from scratch. FOLDER/report.html shows it,
FOLDER/report.json has the figures, FOLDER/run is the run. Needs d2v[vision,plot], and no network.""",
    example="d2v quickstart --out out\nd2v quickstart --out again --steps 9000 --seed 1",
    add_arguments=_add_arguments,
    run=run,
)
