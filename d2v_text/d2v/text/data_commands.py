"""Subcommands of `d2v data` for text: token files and tokenizers."""

import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from attrs.validators import and_, ge, lt

from d2v.core.data import DataError, HoldOut, escaped
from d2v.core.modality import DataCommand
from d2v.core.validators import check
from d2v.text.corpus.builtin import BUILTIN, builtin_text
from d2v.text.corpus.encoding import encode, refuse_taken
from d2v.text.corpus.public_sets import PublicSet, PublicSets
from d2v.text.corpus.sources import trained_on
from d2v.text.corpus.text_files import find_texts
from d2v.text.corpus.texts import TextFiles, Texts
from d2v.text.corpus.unfinished import JOURNAL, Encoded
from d2v.text.tokenizing import Tokenizer, has_tokenizer, read_tokenizer, write_tokenizer

__all__ = ["tokenizer", "tokens"]

_SOURCES = "text files (.txt, .jsonl, also .gz), folders of them, or a built-in set (wordnet)"


def tokenizer_arguments(parser: ArgumentParser) -> None:
    """Add the tokenizer and the number of processes, for commands that write token files."""
    parser.add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="folder with encoder.json, vocab.bpe and dict.txt (as published for GPT-2 and RoBERTa), with vocab.json "
        "and merges.txt, or of a model (default: that in DEST)",
    )
    parser.add_argument(
        "--vocabulary", type=int, metavar="N", help="train a tokenizer with N ids on the text instead, at least 261"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all CPU cores)"
    )


def write_tokens(source: Texts, arguments: Namespace, *, skip_invalid: bool, hold_out: HoldOut | None = None) -> None:
    """Write token files and the tokenizer to `arguments.dest`; print counts and what was left out.

    Raises:
        DataError: if the text or the tokenizer cannot be used, or DEST has these splits already.
    """
    dest = Path(arguments.dest)
    if not (dest / JOURNAL).exists():
        refuse_taken(dest, source.splits)
    chosen = _tokenizer_for(arguments, dest, source)
    if not has_tokenizer(dest):
        write_tokenizer(chosen, dest)
    written = encode(
        source,
        dest,
        chosen,
        skip_invalid=skip_invalid,
        workers=max(1, arguments.workers),
        hold_out=hold_out,
        say=lambda text: print(text, flush=True),
    )
    for split, done in written.items():
        _say(dest / split, done)


def _text_arguments(parser: ArgumentParser, *, needed: bool) -> None:
    parser.add_argument("sources", nargs="+" if needed else "*", metavar="SRC", help=_SOURCES)
    parser.add_argument("dest", metavar="DEST", help="folder to write to")
    parser.add_argument(
        "--field",
        default="text",
        metavar="NAME",
        help="field of JSON lines, or column, that holds the text (default: %(default)s)",
    )


def _tokens_arguments(parser: ArgumentParser) -> None:
    """Add sources, output, tokenizer and options."""
    _text_arguments(parser, needed=False)
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="NAME[:CONFIG[:SPLIT]]",
        help="data set of Hugging Face's hub instead of SRC, or a folder, read as a stream; can be repeated",
    )
    tokenizer_arguments(parser)
    parser.add_argument("--split", metavar="NAME", help="write everything to this split (default: by names, or train)")
    parser.add_argument(
        "--valid-percent",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="fraction of the documents in the split val, below 1, chosen by a hash of their text (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the selection (default: %(default)s)")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out lines and files that are not text")


def _tokens(arguments: Namespace) -> None:
    """Write token files of text files or data sets.

    Raises:
        DataError: if the sources cannot be used, or DEST has these splits already.
        ValueError: if the fraction or the seed is out of its range.
    """
    split, fraction = arguments.split, arguments.valid_percent
    if split is not None and not re.fullmatch(r"[\w-]+", split):
        raise DataError(f"--split {split!r} is not a name of letters, digits, - and _")
    check(and_(ge(0), lt(1)), valid_percent=fraction)
    if fraction and split is not None:
        raise DataError("--split and --valid-percent exclude each other: give one")
    hold_out = HoldOut(fraction=fraction, seed=arguments.seed) if fraction else None
    write_tokens(_source(arguments), arguments, skip_invalid=arguments.skip_invalid, hold_out=hold_out)


def _source(arguments: Namespace) -> Texts:
    if bool(arguments.sources) == bool(arguments.dataset):
        raise DataError("give text files or --dataset NAME, and the folder to write to as the last name")
    if arguments.dataset:
        sets = tuple(map(PublicSet.named, arguments.dataset))
        return PublicSets(sets, arguments.field, arguments.split or "train")
    texts = _texts(arguments.sources)
    if arguments.split is not None:
        texts = {arguments.split: [file for files in texts.values() for file in files]}
    return TextFiles(texts, arguments.field)


def _texts(sources: Sequence[str]) -> dict[str, list[str]]:
    return find_texts([str(builtin_text(one)) if one in BUILTIN else one for one in sources])


def _tokenizer_for(arguments: Namespace, dest: Path, source: Texts) -> Tokenizer:
    own = read_tokenizer(dest) if has_tokenizer(dest) else None
    if arguments.tokenizer is not None and arguments.vocabulary is not None:
        raise DataError("--tokenizer and --vocabulary exclude each other: give one")
    if arguments.tokenizer is not None:
        given = read_tokenizer(_model_folder(arguments.tokenizer))
        if own not in (None, given):
            raise DataError(f"{escaped(str(dest))} has another tokenizer than --tokenizer; choose another folder")
        return given
    if own is not None:
        if arguments.vocabulary not in (None, own.vocabulary_size):
            raise DataError(
                f"{escaped(str(dest))} has a tokenizer of {own.vocabulary_size} ids; leave --vocabulary out"
            )
        return own
    if arguments.vocabulary is None:
        raise DataError("no tokenizer: give --tokenizer FOLDER, or --vocabulary N to train one on the text")
    return trained_on(source, arguments.vocabulary)


def _model_folder(folder: str) -> Path:
    """The folder itself, or the model in it if it is a run."""
    model = Path(folder) / "model"
    return model if not has_tokenizer(folder) and has_tokenizer(model) else Path(folder)


def _say(stem: Path, done: Encoded) -> None:
    print(f"{escaped(str(stem))}: {done.tokens} tokens, {done.lines} lines, {done.documents} documents")
    if done.empty:
        print(f"  {len(done.empty)} files without text: {', '.join(map(escaped, done.empty[:3]))}")
    if done.skipped:
        print(f"  {done.skipped.total()} lines or files that are not text left out:")
        print("\n".join(f"    {reason}" for reason in done.reasons))


tokens = DataCommand(
    summary="turn text into token files to pretrain on",
    add_arguments=_tokens_arguments,
    run=_tokens,
)


def _tokenizer_arguments(parser: ArgumentParser) -> None:
    """Add sources, output and size."""
    _text_arguments(parser, needed=True)
    parser.add_argument("--vocabulary", type=int, required=True, metavar="N", help="number of ids, at least 261")


def _tokenizer(arguments: Namespace) -> None:
    """Train a tokenizer on the first 64 MB of text and write its files.

    Raises:
        DataError: if the sources cannot be used, or DEST has a tokenizer already.
    """
    dest = Path(arguments.dest)
    if has_tokenizer(dest):
        raise DataError(f"{escaped(str(dest))} has a tokenizer already; choose another folder")
    texts = _texts(arguments.sources)
    files = [file for files in texts.values() for file in files]
    made = trained_on(TextFiles({"train": files}, arguments.field), arguments.vocabulary)
    write_tokenizer(made, dest)
    print(f"{escaped(str(dest))}: a tokenizer of {made.vocabulary_size} ids")


tokenizer = DataCommand(
    summary="train a tokenizer on text files",
    add_arguments=_tokenizer_arguments,
    run=_tokenizer,
)
