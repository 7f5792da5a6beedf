"""Open the texts that a path names: one file, a file for each split, or the official files of GLUE."""

from pathlib import Path

from attrs import evolve

from d2v.core.data import DataError, escaped
from d2v.core.data.folders.layout import SPLITS, split_name, use_of
from d2v.text.sentences.columns import SPLIT, Columns, find_columns
from d2v.text.sentences.glue import GlueTask, glue_columns, glue_files, read_glue
from d2v.text.sentences.reading import ENDINGS, Table, line_error, read_table
from d2v.text.sentences.text_set import Texts, TextSet

_SHOWN = 3


def open_texts(
    path: str,
    *,
    glue: GlueTask | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    header: bool = True,
) -> TextSet:
    """Open the texts that a path names: a file, or a folder with a file for each split.

    Args:
        path: of the file or folder.
        glue: task whose official files they are; None = any files.
        text: column of the text, see `find_columns`.
        pair: column of the second text.
        label: column of the label.
        header: whether tables have one.

    Raises:
        DataError: if there is no such file, or its content cannot be used.
    """
    if not Path(path).exists():
        raise DataError(f"data.path={path!r} does not exist; give a file ({', '.join(ENDINGS)}) or a folder of them")
    # Files of other kinds are read by their own rules, so that a model of GLUE can predict new texts.
    if glue is not None and (Path(path).is_dir() or path.endswith(".tsv")):
        return _open_glue(path, glue)
    files, unused = _files(path)
    tables = {name: read_table(file, header=header) for name, file in files.items()}
    first = tables.get("train") or next(iter(tables.values()))
    columns = find_columns(first, text=text, pair=pair, label=label)
    own_splits = (
        len(files) == 1 and Path(path).is_file() and SPLIT in first.columns and SPLIT not in (text, pair, label)
    )
    parts: dict[str, Texts] = {}
    for name, table in tables.items():
        found = _of_table(table, _present(table, columns, must=table is first or name == "val"))
        parts |= _divided(table, found) if own_splits else {name: found}
    named = {columns.text, columns.pair, columns.label, *([SPLIT] if own_splits else ())}
    other = [name for name in first.columns if name not in named]
    return TextSet(
        path=path,
        parts={name: parts[name] for name in sorted(parts, key=_place)},
        has_splits=own_splits or len(files) > 1 or Path(path).is_dir(),
        facts=(columns.described(),) if len(first.columns) > 1 else (),
        unused={kind: tuple(names) for kind, names in (("columns", other), ("files", unused)) if names},
    )


def _open_glue(path: str, glue: GlueTask) -> TextSet:
    parts: dict[str, Texts] = {}
    notes = []
    files = glue_files(path, glue)
    for name, file in files.items():
        table, left_out = read_glue(file, glue, name)
        parts[name] = _of_table(table, glue_columns(table))
        if left_out:
            notes.append(f"{left_out} broken lines of {name} are left out, as published")
    return TextSet(path=path, parts=parts, has_splits=True, glue=True, notes=tuple(notes))


def _files(path: str) -> tuple[dict[str, str], list[str]]:
    """Files by split, and the names of others."""
    if Path(path).is_file():
        name = split_name(Path(path).stem)
        return {"train" if name is None else name: path}, []
    found: dict[str, str] = {}
    unused: list[str] = []
    for file in sorted(Path(path).iterdir()):
        use = use_of(file.stem) if file.suffix.lower() in ENDINGS and file.is_file() else None
        if use is None:
            unused.append(file.name)
            continue
        name = split_name(file.stem) or file.stem
        if name in found:
            raise DataError(f"{escaped(found[name])} and {escaped(str(file))} are both the split {name!r}; remove one")
        found[name] = str(file)
    if not found:
        listed = ", ".join(map(escaped, unused[:_SHOWN])) or "nothing"
        raise DataError(
            f"data.path={path!r} has no file that is named like a split (train.csv, val.jsonl, test.tsv ...); it has "
            f"{listed}; name its files so, or give one of them"
        )
    return found, unused


def _present(table: Table, columns: Columns, *, must: bool) -> Columns:
    """The columns of another file of the same set; only those that are not for training may lack labels."""
    if columns.label not in table.columns and not must:
        columns = evolve(columns, label=None)
    for name in (columns.text, columns.pair, columns.label):
        if name is not None and name not in table.columns:
            raise DataError(f"{escaped(table.path)} has no column {name!r}, which the training file has")
    return columns


def _of_table(table: Table, columns: Columns) -> Texts:
    def cells(name: str, what: str) -> list[str]:
        found: list[str] = []
        for cell, number in zip(table.column(name), table.lines, strict=True):
            if cell is None or (what == "label" and not cell.strip()):
                raise line_error(table.path, number, f"there is no {what} ({name})")
            found.append(cell.strip())
        return found

    texts = cells(columns.text, "text")
    given = None if columns.label is None else table.column(columns.label)
    if given is not None and all(cell is None or not cell.strip() for cell in given):
        given = None  # an empty column, as in files of tests
    return Texts(
        texts=texts,
        pairs=None if columns.pair is None else cells(columns.pair, "second text"),
        given=None if given is None or columns.label is None else cells(columns.label, "label"),
        places=[(table.path, number) for number in table.lines],
    )


def _divided(table: Table, found: Texts) -> dict[str, Texts]:
    """Texts by the column `split`."""
    by_split: dict[str, list[int]] = {}
    for id, (cell, number) in enumerate(zip(table.column(SPLIT), table.lines, strict=True)):
        name = split_name(cell or "")
        if name is None:
            raise line_error(table.path, number, f"{cell!r} is not a split; use {', '.join(SPLITS)}")
        by_split.setdefault(name, []).append(id)
    return {name: _taken(found, ids) for name, ids in by_split.items()}


def _taken(texts: Texts, ids: list[int]) -> Texts:
    return Texts(
        texts=[texts.texts[id] for id in ids],
        pairs=None if texts.pairs is None else [texts.pairs[id] for id in ids],
        given=None if texts.given is None else [texts.given[id] for id in ids],
        places=[texts.places[id] for id in ids],
    )


def _place(name: str) -> tuple[int, str]:
    use = use_of(name)
    return (len(SPLITS) if use is None else SPLITS.index(use), name)
