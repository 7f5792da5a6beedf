"""Files named by a list: one path a line, or a table with labels and splits."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, field

from d2v.core.data.broken import DataError
from d2v.core.data.folders.file_set import FileSet, SplitFiles
from d2v.core.data.folders.layout import SPLITS, class_name, split_name, use_of
from d2v.core.data.folders.medium import Medium
from d2v.core.data.folders.tree import unreadable
from d2v.core.data.names import escaped

LISTS = (".txt", ".csv", ".tsv")
_COLUMNS = ("path", "label", "split")


def read_list(path: str, medium: Medium, more: Sequence[str] = ()) -> FileSet:
    """Return the files of a list, in its order; missing files count as broken when they are read.

    Args:
        path: a `.txt` file with one path a line, or a `.csv` or `.tsv` file with a header of `path` and, optionally,
            `label` and `split`. Paths are relative to the list's folder. Empty lines are skipped.
        medium: what the files are.
        more: names of further columns that are used, if the header has them.

    Raises:
        DataError: naming the line, if the list cannot be read or contradicts itself.
    """
    rows = _Rows(path, medium, tuple(more))
    text = _text(path)
    if path.lower().endswith(".txt"):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                rows.add(number, {"path": line.removesuffix("\r")})
    else:
        _read_table(text, "\t" if path.lower().endswith(".tsv") else ",", rows)
    return rows.file_set()


def _text(path: str) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(error) from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:1000]:
        raise DataError(f"{escaped(path)}, line 1: the list is not UTF-8 text; save it as UTF-8")
    # Keep the bytes of names that are not UTF-8.
    return os.fsdecode(content.removeprefix(b"\xef\xbb\xbf"))


def _read_table(text: str, delimiter: str, rows: "_Rows") -> None:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            number = reader.line_num
            if not header:
                header = [cell.strip().lower() for cell in row]
                rows.check_header(number, header)
                continue
            if len(row) != len(header):
                raise rows.error(number, f"{len(row)} fields, but the header has {len(header)}")
            cells = dict(zip(header, row, strict=True))
            rows.add(number, cells)
    except csv.Error as error:
        raise rows.error(reader.line_num, str(error)) from error


@define(eq=False)
class _Rows:
    """Rows of a list, checked as they are added."""

    path: str
    medium: Medium
    more: tuple[str, ...]
    found: dict[str, list[tuple[str, ...]]] = field(factory=dict)  # path, class and further columns by split
    lines: dict[str, tuple[int, tuple[str, ...]]] = field(factory=dict)  # line, and split, class ... by path
    columns: tuple[str, ...] = ()
    unused: dict[str, list[str]] = field(factory=dict)
    has_splits: bool = False

    def check_header(self, number: int, header: list[str]) -> None:
        """Refuse a header without a unique path column."""
        usable = (*_COLUMNS, *self.more)
        known = [name for name in header if name in usable]
        if "path" not in known or len(set(known)) < len(known):
            options = f"{', '.join(usable[1:-1])} and {usable[-1]}"
            raise self.error(number, f"the header must name the column path and, optionally, {options}, once each")
        self.columns = tuple(name for name in self.more if name in known)
        more = [name or "(no name)" for name in header if name not in usable]
        if more:
            self.unused["columns"] = more
        self.has_splits = "split" in known

    def add(self, number: int, cells: Mapping[str, str]) -> None:
        """Check a row and add it."""
        path, label = cells["path"], cells.get("label")
        if not path.strip():
            raise self.error(number, "there is no path")
        known = self._split(number, cells.get("split"))
        name = class_name(label.strip()) if label else ""
        values = (name, *(cells[column] for column in self.columns))
        line, before = self.lines.setdefault(os.path.normpath(path), (number, (known, *values)))
        if line != number:
            if before != (known, *values):
                raise self.error(number, f"{escaped(path)} is already on line {line} with another label or split")
            self.unused.setdefault(f"lines that repeat {self.medium.one}", []).append(f"line {number}: {path}")
            return
        rows = self.found.setdefault(known, [])
        if rows and bool(name) != bool(rows[0][1]):
            raise self.error(number, f"a label is missing; label all {self.medium.unit} of a split, or none")
        rows.append((path, *values))

    def _split(self, number: int, split: str | None) -> str:
        known = "train" if split is None else split_name(split)
        if known is None and split is not None and self.medium.own_splits and use_of(split):
            known = split.strip()
        if known is None:
            raise self.error(number, f"{split!r} is not a split; use {', '.join(SPLITS)}")
        return known

    def file_set(self) -> FileSet:
        """Return all rows as a set."""
        ordered = [split for split in SPLITS if split in self.found]
        ordered += [split for split in self.found if split not in SPLITS]
        parts = {split: self._part(self.found[split]) for split in ordered}
        root = os.path.dirname(self.path) or "."  # noqa: PTH120 - any bytes
        return FileSet(
            medium=self.medium,
            path=self.path,
            root=root,
            parts=parts or {"train": SplitFiles()},
            has_splits=self.has_splits and bool(parts),
            unused=self.unused,
        )

    def _part(self, rows: list[tuple[str, ...]]) -> SplitFiles:
        paths, names, *more = map(list, zip(*rows, strict=True))
        return SplitFiles.of(paths, names if names[0] else None, dict(zip(self.columns, more, strict=True)))

    def error(self, number: int, reason: str) -> DataError:
        """The error for a line."""
        return DataError(f"{escaped(self.path)}, line {number}: {reason}")
