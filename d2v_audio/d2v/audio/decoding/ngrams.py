"""N-gram language models: ARPA files and KenLM's binary files, read by KenLM."""

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from d2v.audio.decoding.packages import require_packages
from d2v.core.data import DataError, escaped

_BINARY, _GZIP = b"mmap lm http", b"\x1f\x8b"


def load_ngrams(path: str | os.PathLike[str], words: Sequence[str]) -> Any:
    """Load an n-gram model as a language model of flashlight-text. Its scores are log10 probabilities.

    Args:
        path: of an ARPA file (`.gz` too) or a binary file of KenLM.
        words: words by the numbers that the search uses; those that the model lacks score as its `<unk>`.

    Raises:
        DataError: if the file is missing or damaged.
        MissingExtraError: if KenLM or flashlight-text is not installed.
    """
    require_packages("flashlight", "kenlm")
    kenlm = import_module("flashlight.lib.text.decoder.kenlm")
    dictionary = import_module("flashlight.lib.text.dictionary").Dictionary(list(words))
    _check_file(path)
    try:
        return kenlm.KenLM(os.fspath(path), dictionary)
    except (RuntimeError, UnicodeDecodeError) as error:  # KenLM's messages may quote bytes of the file
        raise _unreadable(path, error) from error


def missing_from_ngrams(path: str | os.PathLike[str], words: Sequence[str]) -> list[str]:
    """Return the words that an n-gram model lacks.

    The words of an ARPA file are in its first section, so the rest is not read.

    Raises:
        DataError: if the file cannot be read.
        MissingExtraError: if the file is binary and KenLM is not installed.
    """
    _check_file(path)
    with Path(path).open("rb") as stream:
        start = stream.read(len(_BINARY))
    if start == _BINARY:
        require_packages("kenlm")
        try:
            model = import_module("kenlm").Model(os.fspath(path))
        except (OSError, RuntimeError) as error:
            raise _unreadable(path, error) from error
        return [word for word in words if word not in model]
    try:
        with closing(gzip.open(path) if start.startswith(_GZIP) else Path(path).open("rb")) as opened:
            known = set(_unigrams(opened))
    except (EOFError, OSError) as error:
        raise _unreadable(path, error) from error
    return [word for word in words if word.encode() not in known]


def _unigrams(stream: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """Words of the section \\1-grams: of an ARPA file; columns are probability, word and back-off weight."""
    inside = False
    for line in stream:
        columns = line.split()
        if columns[:1] == [b"\\1-grams:"]:
            inside = True
        elif inside and columns and columns[0].startswith(b"\\"):
            return
        elif inside and len(columns) > 1:
            yield columns[1]


def _check_file(path: str | os.PathLike[str]) -> None:
    if not Path(path).is_file():
        raise DataError(f"{escaped(os.fspath(path))}: there is no such file; give a language model (ARPA or KenLM)")


def _unreadable(path: str | os.PathLike[str], error: Exception) -> DataError:
    reason = "it is neither an ARPA file nor a binary file of KenLM"
    if not isinstance(error, UnicodeDecodeError) and str(error):
        reason = str(error).splitlines()[-1]
    return DataError(f"{escaped(os.fspath(path))} is not a readable language model: {escaped(reason)}")
