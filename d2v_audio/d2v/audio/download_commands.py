"""Subcommands of `d2v data` that download public data sets of speech and prepare them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from d2v.audio.recordings.public_sets import LIBRILIGHT, LIBRISPEECH, Subset, prepare
from d2v.core.data import escaped
from d2v.core.files.downloads import ShownProgress
from d2v.core.modality import DataCommand

__all__ = ["librilight", "librispeech"]


def _arguments(subsets: Mapping[str, Subset], parser: ArgumentParser) -> None:
    """Add the folder, the subsets, and another server."""
    sizes = ", ".join(f"{name} ({subset.size})" for name, subset in subsets.items())
    parser.add_argument("dest", metavar="DEST", help="folder to write to, then the value of data.path")
    parser.add_argument(
        "--subset",
        action="append",
        required=True,
        choices=list(subsets),
        metavar="NAME",
        help=f"subset to prepare, can be repeated: {sizes}",
    )
    parser.add_argument("--mirror", metavar="URL", help="folder of the same archives on another server")


def _run(subsets: Mapping[str, Subset], arguments: Namespace) -> None:
    """Prepare one subset after the other; print what was written."""
    for name in dict.fromkeys(arguments.subset):
        written = prepare(subsets[name], Path(arguments.dest), mirror=arguments.mirror, progress=ShownProgress(name))
        for path, what in written.items():
            print(f"{escaped(str(path))}: {what}", flush=True)
        if not written:
            print(f"{name}: complete")


def _command(title: str, subsets: Mapping[str, Subset]) -> DataCommand:
    return DataCommand(
        summary=f"download {title}, and write manifests and letters",
        add_arguments=partial(_arguments, subsets),
        run=partial(_run, subsets),
    )


librispeech = _command("LibriSpeech", LIBRISPEECH)
librilight = _command("Libri-Light", LIBRILIGHT)
