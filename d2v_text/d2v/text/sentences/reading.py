"""Tables of text: CSV, tab-separated, JSON lines, or one text a line."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen

from d2v.core.data import DataError, escaped

TEXT = "text"
"""The column of a file with one text a line."""
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")

Cell = str | None


@frozen(kw_only=True, eq=False)
class Table:
    """Rows of a file.

    Args:
        path: of the file.
        columns: names, in the order of the file.
        rows: a cell for each column; None = the row has none.
        lines: line of the file in which each row begins, from 1.
    """

    path: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(repr=False)
    lines: list[int] = field(repr=False)

    def column(self, name: str) -> list[Cell]:
        """The cells of a column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read_table(path: str, *, header: bool = True) -> Table:
    """Read a file by its ending.

    `.csv` is quoted as usual; `.tsv` is not quoted, so that a quotation mark is a letter; `.jsonl` and `.ndjson` have
    an object in each line; every line of `.txt` is a text.

    Args:
        path: of the file.
        header: whether the first line of a `.csv` or `.tsv` names the columns; otherwise they are named 1, 2, ...

    Raises:
        DataError: naming the line, if the file cannot be read or is not of this form.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{escaped(path)} is not a table of text; such files end in {', '.join(ENDINGS)}")
    text = read_text(path)
    if ending == ".txt":
        return Table(path=path, columns=(TEXT,), rows=[(one,) for _, one in _lines(text)], lines=_numbers(text))
    if ending == ".csv":
        return _table(path, _quoted(path, text), header=header)
    if ending == ".tsv":
        return _table(path, ((number, line.split("\t")) for number, line in _lines(text)), header=header)
    return _json_lines(path, text)


def read_text(path: str) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        DataError: if it cannot be read, or is not UTF-8 text; naming the line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{escaped(path)} cannot be read: {error.strerror}") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{escaped(path)} is UTF-16, not UTF-8; save it as UTF-8")
    place = content.find(b"\0")
    if place >= 0:
        raise line_error(path, content.count(b"\n", 0, place) + 1, "a NUL byte: the file is not text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise line_error(path, number, f"byte {error.start} of the file is not UTF-8; save it as UTF-8") from error


def line_error(path: str, number: int, reason: str) -> DataError:
    """The error for a line of a file."""
    return DataError(f"{escaped(path)}, line {number}: {reason}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; empty ones are left out, and line ends of Windows removed."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _numbers(text: str) -> list[int]:
    return [number for number, _ in _lines(text)]


def _quoted(path: str, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    before = 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield before + 1, row
            before = reader.line_num
    except csv.Error as error:
        raise line_error(path, reader.line_num, f"{error}; quote cells that contain a comma or a line break") from error


def _table(path: str, rows: Iterator[tuple[int, list[str]]], *, header: bool) -> Table:
    found: list[tuple[Cell, ...]] = []
    lines: list[int] = []
    columns: tuple[str, ...] = ()
    for number, row in rows:
        if not columns:
            columns = tuple(cell.strip() for cell in row) if header else tuple(map(str, range(1, len(row) + 1)))
            if len(set(columns)) < len(columns):
                raise line_error(
                    path, number, "the header names a column twice; if it is no header, set data.header=false"
                )
            if header:
                continue
        if len(row) != len(columns):
            what = "the header has" if header else "the first line has"
            raise line_error(path, number, f"{len(row)} cells, but {what} {len(columns)}")
        found.append(tuple(row))
        lines.append(number)
    return Table(path=path, columns=columns, rows=found, lines=lines)


def _json_lines(path: str, text: str) -> Table:
    objects: list[dict[str, Any]] = []
    lines: list[int] = []
    columns: dict[str, None] = {}
    for number, line in _lines(text):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise line_error(path, number, f"not JSON: {error}") from error
        if not isinstance(value, dict):
            raise line_error(path, number, "not a JSON object; expected one in each line")
        objects.append({key: _cell(item) for key, item in value.items()})
        lines.append(number)
        columns |= dict.fromkeys(value)
    rows = [tuple(one.get(name) for name in columns) for one in objects]
    return Table(path=path, columns=tuple(columns), rows=rows, lines=lines)


def _cell(value: Any) -> Cell:
    return value if value is None or isinstance(value, str) else json.dumps(value)
