"""The lines of text in a piece of a file: plain text or JSON lines, and what in it is not text."""

import json
from collections.abc import Iterator

from attrs import frozen

from d2v.text.corpus.text_files import LONGEST_LINE, Piece, cut_place


@frozen
class Bad:
    """A line that is not text.

    Args:
        offset: its first wrong byte in the file, or where the line begins.
        reason: what is wrong.
    """

    offset: int
    reason: str


def lines_of(piece: Piece) -> Iterator[str | Bad]:
    """Yield the lines of a piece without the space around them; an empty one ends a document.

    Lines end with a line feed; a carriage return before it is space. A line longer than `LONGEST_LINE` bytes is cut.

    Args:
        piece: whole lines.

    >>> list(lines_of(Piece(b"one \\r\\n\\n\\xff\\n")))
    ['one', '', Bad(offset=7, reason='byte 7 is not UTF-8')]
    >>> list(lines_of(Piece(b'{"text": "a\\\\nb"}\\n', field="text")))
    ['a', 'b', '']
    >>> list(lines_of(Piece(b"one\\n\\ntwo", whole=True)))
    ['one', 'two', '']
    """
    if piece.whole:
        yield from _of_document(piece)
        return
    offset = piece.offset
    for line in piece.data.removesuffix(b"\n").split(b"\n"):
        found = _decoded(line, offset)
        if isinstance(found, Bad):
            yield found
        elif piece.field is None:
            yield from _cut(found)
        elif found.strip():
            yield from _record(found, piece.field, offset)
        offset += len(line) + 1


def _of_document(piece: Piece) -> Iterator[str | Bad]:
    found = _decoded(piece.data, piece.offset)
    if isinstance(found, Bad):
        yield found
    else:
        yield from _lines(found)
    if piece.ends and (piece.offset or not isinstance(found, Bad)):
        yield ""


def _lines(text: str) -> Iterator[str]:
    """The lines of a document; an empty one would end it."""
    for part in text.split("\n"):
        yield from (found for found in _cut(part) if found)


def _decoded(line: bytes, offset: int) -> str | Bad:
    if (place := line.find(b"\0")) >= 0:
        return Bad(offset + place, f"byte {offset + place} is NUL")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        return Bad(offset + error.start, f"byte {offset + error.start} is not UTF-8")


def _record(line: str, field: str, offset: int) -> Iterator[str | Bad]:
    where = f"the line at byte {offset}"
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        yield Bad(offset, f"{where} is not JSON: {error}")
        return
    text = values.get(field) if isinstance(values, dict) else None
    if not isinstance(text, str):
        known = f"; it has {', '.join(map(repr, list(values)[:5]))}" if isinstance(values, dict) and values else ""
        yield Bad(offset, f"{where} has no text in the field {field!r}{known}")
    elif any("\ud800" <= letter <= "\udfff" for letter in text):
        yield Bad(offset, f"{where} contains a lone surrogate, which is no character")
    else:
        yield from _lines(text)
        yield ""


def _cut(text: str) -> Iterator[str]:
    if len(text) * 4 <= LONGEST_LINE or len(data := text.encode()) <= LONGEST_LINE:
        yield text.strip()
        return
    while len(data) > LONGEST_LINE:
        place = cut_place(data)
        yield data[:place].decode().strip()
        data = data[place:]
    yield data.decode().strip()
