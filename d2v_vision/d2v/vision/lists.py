"""Image files named by a list: one path a line, or a table with labels and splits."""

import csv
import io
import os
from pathlib import Path

from attrs import define, field

from d2v.core.data import DataError, escaped
from d2v.vision.files import FileSet, SplitFiles
from d2v.vision.layout import SPLITS, class_name, split_name
from d2v.vision.tree import unreadable

LISTS = (".txt", ".csv", ".tsv")
TWICE = "lines that repeat an image"
_COLUMNS = ("path", "label", "split")


def read_list(path: str) -> FileSet:
    """Return the files of a list, in its order; missing files count as broken when they are read.

    Args:
        path: a `.txt` file with one path a line, or a `.csv` or `.tsv` file with a header of `path` and, optionally,
            `label` and `split`. Paths are relative to the list's folder. Empty lines are skipped.

    Raises:
        DataError: naming the line, if the list cannot be read or contradicts itself.
    """
    rows = _Rows(path)
    text = _text(path)
    if path.lower().endswith(".txt"):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                rows.add(number, line.removesuffix("\r"), None, None)
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
            rows.add(number, cells["path"], cells.get("label"), cells.get("split"))
    except csv.Error as error:
        raise rows.error(reader.line_num, str(error)) from error


@define(eq=False)
class _Rows:
    """Rows of a list, checked as they are added."""

    path: str
    found: dict[str, tuple[list[str], list[str]]] = field(factory=dict)  # paths and classes by split
    lines: dict[str, tuple[int, str, str]] = field(factory=dict)  # line, class and split by path
    unused: dict[str, list[str]] = field(factory=dict)
    has_splits: bool = False

    def check_header(self, number: int, header: list[str]) -> None:
        """Refuse a header without a unique path column."""
        known = [name for name in header if name in _COLUMNS]
        if "path" not in known or len(set(known)) < len(known):
            raise self.error(number, "the header must name the column path and, optionally, label and split, once each")
        more = [name or "(no name)" for name in header if name not in _COLUMNS]
        if more:
            self.unused["columns"] = more
        self.has_splits = "split" in known

    def add(self, number: int, path: str, label: str | None, split: str | None) -> None:
        """Check a row and add it."""
        if not path.strip():
            raise self.error(number, "there is no path")
        known = "train" if split is None else split_name(split)
        if known is None:
            raise self.error(number, f"{split!r} is not a split; use {', '.join(SPLITS)}")
        name = class_name(label.strip()) if label else ""
        key = os.path.normpath(path)
        before = self.lines.setdefault(key, (number, name, known))
        if before[0] != number:
            if before[1:] != (name, known):
                raise self.error(number, f"{escaped(path)} is already on line {before[0]} with another label or split")
            self.unused.setdefault(TWICE, []).append(f"line {number}: {path}")
            return
        paths, names = self.found.setdefault(known, ([], []))
        if paths and bool(name) != bool(names[0]):
            raise self.error(number, "a label is missing; label all images of a split, or none")
        paths.append(path)
        names.append(name)

    def file_set(self) -> FileSet:
        """Return all rows as a set."""
        parts = {
            split: SplitFiles.of(paths, names if names[0] else None)
            for split, (paths, names) in self.found.items()
            if paths
        }
        root = os.path.dirname(self.path) or "."  # noqa: PTH120 - any bytes
        parts = {split: parts[split] for split in SPLITS if split in parts}
        return FileSet(
            path=self.path,
            root=root,
            parts=parts or {"train": SplitFiles()},
            has_splits=self.has_splits and bool(parts),
            unused=self.unused,
        )

    def error(self, number: int, reason: str) -> DataError:
        """The error for a line."""
        return DataError(f"{escaped(self.path)}, line {number}: {reason}")
