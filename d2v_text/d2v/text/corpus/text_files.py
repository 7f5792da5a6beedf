"""Which files hold text, and their bytes in pieces of bounded size."""

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from d2v.core.data import DataError, escaped
from d2v.core.data.folders import Medium
from d2v.core.data.folders.folder import gathered_files, read_folder
from d2v.core.data.folders.layout import split_name

LONGEST_LINE = 1 << 18
"""Bytes of text after which a line without an end is cut, at a space if it has one."""
LONGEST_RECORD = 1 << 26
"""Largest line of a file of JSON lines, in bytes."""
_BLOCK = 1 << 20
_PREFIX = 1 << 13  # a NUL byte in it: not text
_JSON = (".jsonl", ".ndjson", ".json")

TEXTS = Medium(
    unit="text files",
    extensions=lambda: frozenset(["txt", "text", "raw", "tokens", "gz", *(end[1:] for end in _JSON)]),
    recognises=lambda path: False,
    check="",
)
"""Which files are text, and what they are called."""


@frozen
class Piece:
    """Whole lines of a file, or a part of a line that is too long.

    Args:
        data: the bytes, decompressed; the last line may lack its end.
        offset: place of the first byte in the file, decompressed.
    """

    data: bytes
    offset: int


def find_texts(paths: Sequence[str]) -> dict[str, list[str]]:
    """Return the text files that paths name, by split; without splits all are in `train`.

    Args:
        paths: files, and folders, which are searched at any depth. The folders in a folder are splits if they are named
            like splits (`train`, `valid`); otherwise its files are, if all of them are (`train.txt`, `valid.txt.gz`).

    Raises:
        DataError: if a path does not exist, or contains no text files.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        for split, files in (_in_folder(path) if Path(path).is_dir() else _one(path)).items():
            found.setdefault(split, []).extend(files)
    return found


def _one(path: str) -> dict[str, list[str]]:
    if not Path(path).is_file():
        raise DataError(f"{escaped(path)} is neither a folder nor a text file")
    return {"train": [path]}


def _in_folder(path: str) -> dict[str, list[str]]:
    parts = read_folder(path, TEXTS)
    if parts.has_splits:
        return {split: _below(path, files.paths) for split, files in parts.parts.items()}
    files = gathered_files(path, TEXTS, labelled=False).paths
    splits = [split_name(file.partition(".")[0]) for file in files]
    if None in splits or "train" not in splits:
        return {"train": _below(path, files)}
    named: dict[str, list[str]] = {}
    for split, file in zip(splits, _below(path, files), strict=True):
        named.setdefault(str(split), []).append(file)
    return named


def _below(path: str, files: Sequence[str]) -> list[str]:
    return [os.path.join(path, file) for file in files]  # noqa: PTH118 - any bytes


def is_json(path: str) -> bool:
    """Whether a file has a JSON object in each line, by its name.

    >>> is_json("books.jsonl.gz"), is_json("books.txt")
    (True, False)
    """
    return path.lower().removesuffix(".gz").endswith(_JSON)


def total_size(paths: Sequence[str]) -> int:
    """Bytes of files, as they are stored."""
    return sum(Path(path).stat().st_size for path in paths)


class NotTextError(Exception):
    """A file that is not text; the argument says why."""


def pieces(path: str) -> Iterator[Piece]:
    """Yield the lines of a file in pieces of about a megabyte. A byte-order mark at the beginning is left out.

    Raises:
        NotTextError: if the file begins like one of another kind.
        DataError: if it cannot be read, a compressed file is cut off, or a line of JSON is too long.
    """
    try:
        with _opened(path) as file:
            yield from _split(file, path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{escaped(path)} cannot be read: {reason}") from error


def _opened(path: str) -> BinaryIO:
    if path.lower().endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a binary stream
    return open(path, "rb")  # noqa: PTH123 - names may be any bytes; the caller closes it


def _split(file: BinaryIO, path: str) -> Iterator[Piece]:
    data = file.read(_BLOCK)
    _check_text(data[:_PREFIX])
    mark = b"\xef\xbb\xbf"
    offset = len(mark) if data.startswith(mark) else 0
    data = data[offset:]
    while data:
        end = data.rfind(b"\n") + 1
        if not end and len(data) > (LONGEST_RECORD if is_json(path) else LONGEST_LINE):
            if is_json(path):
                raise DataError(
                    f"{escaped(path)}, byte {offset}: a line of JSON has more than {LONGEST_RECORD} bytes; give its "
                    "text in a plain file"
                )
            end = cut_place(data)
        if end:
            yield Piece(data[:end], offset)
            offset += end
        more = file.read(_BLOCK)
        data = data[end:] + more
        if not more and not end:
            break
    if data:
        yield Piece(data, offset)


def cut_place(line: bytes) -> int:
    """Where a line that is too long is cut: after its last space within the limit, or between two characters.

    >>> cut_place(b"a" * LONGEST_LINE + b"b") == LONGEST_LINE, cut_place(b"a " + b"b" * LONGEST_LINE)
    (True, 2)
    """
    place = line.rfind(b" ", 0, LONGEST_LINE) + 1
    if place:
        return place
    place = LONGEST_LINE
    while place > LONGEST_LINE - 4 and place < len(line) and line[place] & 0xC0 == 0x80:
        place -= 1  # inside a character
    return place


def _check_text(prefix: bytes) -> None:
    if prefix.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise NotTextError("it is UTF-16; convert it to UTF-8, for example with iconv")
    if b"\0" in prefix:
        raise NotTextError(f"it is not a text file: byte {prefix.index(0)} is NUL")
