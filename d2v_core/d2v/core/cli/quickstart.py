"""`d2v quickstart`: the quickstart of a modality, with the parameters of its function as arguments."""

from argparse import Namespace
from pathlib import Path

from attrs.validators import ge

from d2v.core.cli.arguments import Options, summary_and_details
from d2v.core.cli.command import Command, Parser
from d2v.core.jobs.device import use_threads
from d2v.core.modality import Quickstart, find_quickstart, modalities
from d2v.core.validators import check


def _modalities() -> list[str]:
    """Those with a quickstart."""
    broken = modalities.broken()
    return [name for name in modalities.names() if name not in broken and modalities.load(name).quickstart is not None]


_CHOICE = Options(find_quickstart, words={"modality": _modalities})
_OPTIONS = Options(Quickstart, leave_out=("progress",))
_SUMMARY, _DETAILS = summary_and_details(Quickstart.__call__)


def _add_arguments(parser: Parser) -> None:
    _OPTIONS(parser)
    _CHOICE(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads for computation (default: PyTorch's)")


def run(arguments: Namespace) -> None:
    """Run the quickstart."""
    if arguments.threads is not None:
        check(ge(1), threads=arguments.threads)
        use_threads(arguments.threads)
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
