"""Subcommands of `d2v data` for text: token files and tokenizers."""

import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from d2v.core.data import DataError, escaped
from d2v.core.modality import DataCommand
from d2v.text.corpus.builtin import BUILTIN, builtin_text
from d2v.text.corpus.encoding import Encoded, encode_files
from d2v.text.corpus.sources import trained_on
from d2v.text.corpus.text_files import find_texts
from d2v.text.corpus.token_file import token_splits
from d2v.text.tokenizing import Tokenizer, has_tokenizer, read_tokenizer, write_tokenizer

__all__ = ["tokenizer", "tokens"]

_SOURCES = "text files (.txt, .jsonl, also .gz), folders of them, or a built-in set (wordnet)"


def _text_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SRC", help=_SOURCES)
    parser.add_argument("dest", metavar="DEST", help="folder to write to")


def _tokens_arguments(parser: ArgumentParser) -> None:
    """Add sources, output, tokenizer and options."""
    _text_arguments(parser)
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
        "--field", default="text", help="field of JSON lines that holds the text (default: %(default)s)"
    )
    parser.add_argument("--split", metavar="NAME", help="write everything to this split (default: by names, or train)")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out lines and files that are not text")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all CPU cores)"
    )


def _tokens(arguments: Namespace) -> None:
    """Write token files and the tokenizer; print counts and what was left out.

    Raises:
        DataError: if the sources cannot be used, or DEST has these splits already.
    """
    dest = Path(arguments.dest)
    texts = _texts(arguments.sources)
    if arguments.split is not None:
        if not re.fullmatch(r"[\w-]+", arguments.split):
            raise DataError(f"--split {arguments.split!r} is not a name of letters, digits, - and _")
        texts = {arguments.split: [file for files in texts.values() for file in files]}
    there = set(token_splits(dest)) if dest.is_dir() else set()
    if taken := sorted(there & texts.keys()):
        raise DataError(
            f"{escaped(str(dest))} has the split {taken[0]} already; delete its .bin and .idx to make it again"
        )
    chosen = _tokenizer_for(arguments, dest, texts)
    if not has_tokenizer(dest):
        write_tokenizer(chosen, dest)
    for split, files in texts.items():
        done = encode_files(
            files,
            dest / split,
            chosen,
            text_field=arguments.field,
            skip_invalid=arguments.skip_invalid,
            workers=max(1, arguments.workers),
        )
        _say(dest / split, done)


def _texts(sources: Sequence[str]) -> dict[str, list[str]]:
    return find_texts([str(builtin_text(one)) if one in BUILTIN else one for one in sources])


def _tokenizer_for(arguments: Namespace, dest: Path, texts: dict[str, list[str]]) -> Tokenizer:
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
    return trained_on(
        texts.get("train") or next(iter(texts.values())), arguments.vocabulary, text_field=arguments.field
    )


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
    summary="turn text files into token files to pretrain on",
    add_arguments=_tokens_arguments,
    run=_tokens,
)


def _tokenizer_arguments(parser: ArgumentParser) -> None:
    """Add sources, output and size."""
    _text_arguments(parser)
    parser.add_argument("--vocabulary", type=int, required=True, metavar="N", help="number of ids, at least 261")
    parser.add_argument(
        "--field", default="text", help="field of JSON lines that holds the text (default: %(default)s)"
    )


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
    made = trained_on(files, arguments.vocabulary, text_field=arguments.field)
    write_tokenizer(made, dest)
    print(f"{escaped(str(dest))}: a tokenizer of {made.vocabulary_size} ids")


tokenizer = DataCommand(
    summary="train a tokenizer on text files",
    add_arguments=_tokenizer_arguments,
    run=_tokenizer,
)
