"""Files of a tokenizer: those published for RoBERTa, or a vocabulary and merges as Hugging Face's models have them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d2v.core.data import DataError
from d2v.core.files.atomic import write_bytes
from d2v.text.tokenizing.special import FIRST, MASK, NAMES, UNKNOWN
from d2v.text.tokenizing.tokenizer import Tokenizer

VOCABULARY, MERGES = "vocab.json", "merges.txt"
ENCODER, PUBLISHED_MERGES, DICTIONARY = "encoder.json", "vocab.bpe", "dict.txt"
_FORMS = ((VOCABULARY, MERGES), (ENCODER, PUBLISHED_MERGES, DICTIONARY))


def has_tokenizer(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds all files of a tokenizer."""
    return any(all((Path(folder) / name).is_file() for name in form) for form in _FORMS)


def read_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """Read the tokenizer in a folder: of a model, of token files, or of published files.

    Args:
        folder: with `vocab.json` and `merges.txt`; or with `encoder.json`, `vocab.bpe` and `dict.txt`, as published for
            GPT-2 and RoBERTa.

    Raises:
        DataError: if files are missing or broken, or do not belong together.
    """
    folder = Path(folder)
    files = {name: folder / name for form in _FORMS for name in form if (folder / name).is_file()}
    try:
        return tokenizer_of({name: path.read_bytes() for name, path in files.items()})
    except (ValueError, OSError) as error:
        raise DataError(f"tokenizer in {folder}: {error}") from error


def write_tokenizer(tokenizer: Tokenizer, folder: str | os.PathLike[str]) -> None:
    """Write the files of a tokenizer into a folder, each atomically."""
    for name, content in tokenizer.files().items():
        write_bytes(Path(folder) / name, content)


def tokenizer_of(files: Mapping[str, bytes]) -> Tokenizer:
    """Make a tokenizer from the contents of its files, by name; other files are ignored.

    Raises:
        ValueError: if files are missing or broken, or do not belong together.
    """
    form = next((form for form in _FORMS if all(name in files for name in form)), None)
    if form is None:
        found = ", ".join(name for form in _FORMS for name in form if name in files) or "none of them"
        wanted = " or ".join(" + ".join(form) for form in _FORMS)
        raise ValueError(f"a tokenizer has the files {wanted}; found {found}")
    own = {name: files[name] for name in form}
    return _with_vocabulary(own) if form[0] == VOCABULARY else _published(own)


def tokenizer_of_model(files: Mapping[str, bytes]) -> Tokenizer | None:
    """Make the tokenizer from the files of a model; None if it has none.

    Raises:
        DataError: if the files are broken, or some are missing.
    """
    if VOCABULARY not in files and ENCODER not in files:
        return None
    try:
        return tokenizer_of(files)
    except ValueError as error:
        raise DataError(f"the tokenizer of the model is broken: {error}") from error


def _with_vocabulary(files: Mapping[str, bytes]) -> Tokenizer:
    pieces = _pieces(files[VOCABULARY], VOCABULARY)
    size = len(pieces)
    for name, wanted in (*((name, id) for id, name in enumerate(NAMES)), (MASK, size - 1)):
        if pieces.get(name) != wanted:
            found = "is missing" if name not in pieces else f"has id {pieces[name]}"
            raise ValueError(f"{VOCABULARY}: {name} {found}, but in models of data2vec it has {wanted} of {size} ids")
    ids = np.arange(size)
    return _made(pieces, files, MERGES, ids=ids, vocabulary_size=size)


def _published(files: Mapping[str, bytes]) -> Tokenizer:
    pieces = _pieces(files[ENCODER], ENCODER)
    symbols = dictionary_symbols(files[DICTIONARY])
    ids = np.full(len(pieces), UNKNOWN)
    for id, symbol in enumerate(symbols, FIRST):
        if not symbol.isdecimal():
            continue  # fills the table only, such as madeupword0000
        if int(symbol) >= len(pieces):
            raise ValueError(f"{DICTIONARY} has the symbol {symbol}, but {ENCODER} has {len(pieces)} pieces")
        ids[int(symbol)] = id
    if (ids == UNKNOWN).all():
        raise ValueError(f"{DICTIONARY} has no symbol of {ENCODER}: its symbols must be numbers of pieces")
    return _made(pieces, files, PUBLISHED_MERGES, ids=ids, vocabulary_size=FIRST + len(symbols) + 1)


def _made(pieces: dict[str, int], files: Mapping[str, bytes], merges: str, **options: Any) -> Tokenizer:
    pairs = _merges(files[merges], merges)
    try:
        return Tokenizer(pieces, pairs, files=files, **options)
    except ValueError as error:
        raise ValueError(f"{', '.join(files)} do not belong together: {error}") from error


def dictionary_symbols(content: bytes) -> list[str]:
    """Symbols of a dictionary of the original toolkit, `dict.txt`: a symbol and its count in each line.

    Raises:
        ValueError: naming the line that is not of this form, or repeats a symbol.

    >>> dictionary_symbols(b"13 850\\n262 7\\n")
    ['13', '262']
    """
    found: dict[str, None] = {}
    for number, line in enumerate(_text(content, DICTIONARY).removesuffix("\n").split("\n"), 1):
        parts = line.rstrip("\r").removesuffix(" #fairseq:overwrite").rsplit(" ", 1)
        if len(parts) != 2 or not parts[0] or not parts[1].isdecimal():
            raise ValueError(f"{DICTIONARY}, line {number}: {line[:50]!r} is not a symbol and its count")
        if parts[0] in found:
            raise ValueError(f"{DICTIONARY}, line {number}: the symbol {parts[0]!r} occurs twice")
        found[parts[0]] = None
    return list(found)


def _pieces(content: bytes, name: str) -> dict[str, int]:
    try:
        values = json.loads(_text(content, name))
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(values, dict) or sorted(map(_number, values.values())) != list(range(len(values))):
        raise ValueError(f"{name} must be a table from pieces to the numbers 0, 1, 2, ...")
    return values


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _merges(content: bytes, name: str) -> list[tuple[str, str]]:
    lines = _text(content, name).split("\n")
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"{name}, line {number}: {line[:50]!r} is not a pair of pieces")
        pairs.append((parts[0], parts[1]))
    return pairs


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error}") from error
