"""Subcommands of `d2v data` that download public data sets of text and prepare them."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from d2v.core.data import DataError, escaped
from d2v.core.files.downloads import ShownProgress, download
from d2v.core.modality import DataCommand
from d2v.text.corpus.openwebtext import ADDRESS, DIGEST, OpenWebText
from d2v.text.corpus.token_file import token_splits
from d2v.text.corpus.unfinished import JOURNAL
from d2v.text.data_commands import tokenizer_arguments, write_tokens
from d2v.text.sentences.glue_sets import GLUE_SETS, prepare
from d2v.text.tokenizing import has_tokenizer

__all__ = ["glue", "openwebtext"]


def _glue_arguments(parser: ArgumentParser) -> None:
    """Add the folder, the tasks, and another server."""
    sizes = ", ".join(f"{name} ({one.size})" for name, one in GLUE_SETS.items())
    parser.add_argument("dest", metavar="DEST", help="folder to write to; data.path is the folder of a task in it")
    parser.add_argument(
        "--tasks", nargs="+", choices=list(GLUE_SETS), default=list(GLUE_SETS), metavar="NAME", help=f"default: {sizes}"
    )
    parser.add_argument("--mirror", metavar="URL", help="folder of the same files on another server")


def _glue(arguments: Namespace) -> None:
    """Prepare one task after the other; print what was written."""
    for name in dict.fromkeys(arguments.tasks):
        found = prepare(name, Path(arguments.dest), mirror=arguments.mirror, progress=ShownProgress(name))
        folder = Path(arguments.dest) / GLUE_SETS[name].folder
        print(f"{escaped(str(folder))}: {'complete' if found is None else 'written'}", flush=True)


glue = DataCommand(
    summary="download the tasks of GLUE, and write their official files",
    add_arguments=_glue_arguments,
    run=_glue,
)


def _openwebtext_arguments(parser: ArgumentParser) -> None:
    """Add the folder, the tokenizer, and another server."""
    parser.add_argument("dest", metavar="DEST", help="folder to write to, then the value of data.path")
    tokenizer_arguments(parser)
    parser.add_argument("--keep", action="store_true", help="keep the archive (12.9 GB), to tokenise it once more")
    parser.add_argument("--mirror", metavar="URL", help="folder of the same archive on another server")


def _openwebtext(arguments: Namespace) -> None:
    """Download the archive, write token files of the documents in it, and delete it.

    Raises:
        DownloadError: if the archive cannot be downloaded, or is damaged.
        DataError: if it cannot be read, or there is no tokenizer.
    """
    dest = Path(arguments.dest)
    name = ADDRESS.rpartition("/")[2]
    if {"train", "val"} <= set(token_splits(dest)) and not (dest / JOURNAL).exists():
        print(f"{escaped(arguments.dest)}: complete")
    else:
        if arguments.tokenizer is None and arguments.vocabulary is None and not has_tokenizer(dest):
            raise DataError("no tokenizer: give --tokenizer FOLDER, or --vocabulary N to train one on the text")
        address = ADDRESS if arguments.mirror is None else f"{arguments.mirror.rstrip('/')}/{name}"
        download(address, dest / name, digest=DIGEST, progress=ShownProgress(name))
        write_tokens(OpenWebText(dest / name), arguments, skip_invalid=True)
    if not arguments.keep:
        (dest / name).unlink(missing_ok=True)


openwebtext = DataCommand(
    summary="download OpenWebText, and write token files",
    add_arguments=_openwebtext_arguments,
    run=_openwebtext,
)
