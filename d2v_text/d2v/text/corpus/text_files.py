"""Which files hold text, and their bytes in pieces of bounded size."""

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from attrs import evolve, frozen

from d2v.core.data import DataError, escaped
from d2v.core.data.folders import Medium
from d2v.core.data.folders.folder import gathered_files, read_folder
from d2v.core.data.folders.layout import split_name

LONGEST_LINE = 1 << 18
"""Bytes of text after which a line without an end is cut, at a space if it has one."""
LONGEST_RECORD = 1 << 26
"""Largest line of a file of JSON lines, in bytes."""
BLOCK = 1 << 20
"""Bytes that are read at a time."""
_PREFIX = 1 << 13  # a NUL byte in it: not text
_MARK = b"\xef\xbb\xbf"  # byte-order mark
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
    """Whole lines of a file or document, or a part of a line that is too long.

    Args:
        data: the bytes, decompressed; the last line may lack its end.
        offset: place of the first byte in the file, decompressed.
        name: of the file or document, for messages.
        field: field with the text, if the lines are JSON records; each record is a document. None = plain text.
        whole: whether the file is one document, whose empty lines are left out.
        ends: whether such a document ends with this piece.
    """

    data: bytes
    offset: int = 0
    name: str = ""
    field: str | None = None
    whole: bool = False
    ends: bool = True


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


def pieces(path: str, field: str = "text") -> Iterator[Piece]:
    """Yield the lines of a file in pieces of about a megabyte. A byte-order mark at the beginning is left out.

    A piece ends with a document if one ends in it, so only documents of more than a megabyte are divided.

    Args:
        path: of the file.
        field: field of JSON lines that holds the text.

    Raises:
        NotTextError: if the file begins like one of another kind.
        DataError: if it cannot be read, a compressed file is cut off, or a line of JSON is too long.
    """
    try:
        with _opened(path) as file:
            for data, offset in _split(file, path, longest=LONGEST_RECORD if is_json(path) else None):
                yield Piece(data, offset, path, field if is_json(path) else None)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{escaped(path)} cannot be read: {reason}") from error


def document_pieces(file: IO[bytes], name: str) -> Iterator[Piece]:
    """Yield a document that is a file of its own in pieces of about a megabyte.

    Raises:
        NotTextError: if it begins like a file of another kind.

    >>> import io
    >>> [piece.data for piece in document_pieces(io.BytesIO(b"a line"), "a.txt")]
    [b'a line']
    """
    before: Piece | None = None
    for data, offset in _split(file, name, longest=None):
        if before is not None:
            yield before
        before = Piece(data, offset, name, whole=True, ends=False)
    if before is not None:
        yield evolve(before, ends=True)


def _opened(path: str) -> BinaryIO:
    if path.lower().endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a binary stream
    return open(path, "rb")  # noqa: PTH123 - names may be any bytes; the caller closes it


def _split(file: IO[bytes], name: str, *, longest: int | None) -> Iterator[tuple[bytes, int]]:
    """Parts of a file and their places; a line of more than `longest` bytes is an error, None = it is cut."""
    data, offset, wanted = b"", 0, BLOCK
    while True:
        while len(data) < wanted and (more := file.read(BLOCK)):
            if not data and not offset:
                _check_text(more[:_PREFIX])
                offset = len(_MARK) if more.startswith(_MARK) else 0
                more = more[offset:]
            data += more
        if len(data) < wanted:  # the file has ended
            break
        end = _end(data)
        if not end and longest and len(data) > longest:
            raise DataError(
                f"{escaped(name)}, byte {offset}: a line of JSON has more than {longest} bytes; give its "
                "text in a plain file"
            )
        if not end and not longest and len(data) > LONGEST_LINE:
            end = cut_place(data)
        if end:
            yield data[:end], offset
        data, offset = data[end:], offset + end
        wanted = BLOCK if end else len(data) + 1
    if data:
        yield data, offset


def _end(data: bytes) -> int:
    """Where the last whole document ends, or else the last whole line; 0 = nowhere."""
    document = max(data.rfind(b"\n\n") + 2, data.rfind(b"\n\r\n") + 3)
    return document if document > 2 else data.rfind(b"\n") + 1


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
