"""Subcommands of `d2v data` that download public data sets of text and prepare them."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from d2v.core.data import escaped
from d2v.core.files.downloads import ShownProgress
from d2v.core.modality import DataCommand
from d2v.text.sentences.glue_sets import GLUE_SETS, prepare

__all__ = ["glue"]


def _arguments(parser: ArgumentParser) -> None:
    """Add the folder, the tasks, and another server."""
    sizes = ", ".join(f"{name} ({one.size})" for name, one in GLUE_SETS.items())
    parser.add_argument("dest", metavar="DEST", help="folder to write to; data.path is the folder of a task in it")
    parser.add_argument(
        "--tasks", nargs="+", choices=list(GLUE_SETS), default=list(GLUE_SETS), metavar="NAME", help=f"default: {sizes}"
    )
    parser.add_argument("--mirror", metavar="URL", help="folder of the same files on another server")


def _run(arguments: Namespace) -> None:
    """Prepare one task after the other; print what was written."""
    for name in dict.fromkeys(arguments.tasks):
        found = prepare(name, Path(arguments.dest), mirror=arguments.mirror, progress=ShownProgress(name))
        folder = Path(arguments.dest) / GLUE_SETS[name].folder
        print(f"{escaped(str(folder))}: {'complete' if found is None else 'written'}", flush=True)


glue = DataCommand(
    summary="download the tasks of GLUE, and write their official files",
    add_arguments=_arguments,
    run=_run,
)
