"""The texts that `data.path` names: splits, labels and what is not used."""

from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from d2v.core.data import Contents, DataError, Splits, escaped, name_keys
from d2v.core.data.folders.layout import SPLITS, split_name, splits_by_use, use_of
from d2v.core.suggestions import nearest
from d2v.text.sentences.columns import SPLIT, Columns, find_columns
from d2v.text.sentences.glue import GlueTask, glue_columns, glue_files, read_glue
from d2v.text.sentences.reading import ENDINGS, Table, line_error, read_table

_SHOWN = 3


@frozen(kw_only=True, eq=False)
class Texts:
    """Texts of a split; an id is the index in its list.

    Args:
        texts: the texts, or the first ones of pairs, without white space around them.
        pairs: second texts; None = there are no pairs.
        given: labels as they are in the file; None = there are none.
        places: file and line of each text.
    """

    texts: list[str] = field(factory=list, repr=False)
    pairs: list[str] | None = field(default=None, repr=False)
    given: list[str] | None = field(default=None, repr=False)
    places: list[tuple[str, int]] = field(factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, id: int) -> str:
        """File and line."""
        file, line = self.places[id]
        return f"{Path(file).name}:{line}"

    def keys(self) -> Tensor:
        """`name_keys` of the texts: the same text is the same sample wherever it stands."""
        if self.pairs is None:
            return name_keys(_without_surrogates(text) for text in self.texts)
        return name_keys(_without_surrogates(f"{a}\0{b}") for a, b in zip(self.texts, self.pairs, strict=True))

    def labels(self) -> Tensor | None:
        """Class numbers of all texts; None = labels are numbers, or there are none."""
        if self.given is None or are_numbers(self.given):
            return None
        numbers = {name: number for number, name in enumerate(sorted(set(self.given)))}
        return torch.tensor([numbers[name] for name in self.given])

    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted(set(self.given or ())))


def are_numbers(labels: list[str]) -> bool:
    """Whether labels are numbers to predict and not names of classes, for the summary and for holding out.

    They are if all are numbers, and some are not whole or most occur once. Training asks the task, not this.

    >>> are_numbers(["1", "2", "1"]), are_numbers(["1.5", "2"]), are_numbers(["a", "1.5"])
    (False, True, False)
    """
    distinct = set(labels)
    try:
        values = [float(one) for one in distinct]
    except ValueError:
        return False
    return any(not value.is_integer() for value in values) or 2 * len(distinct) > len(labels)


@frozen(kw_only=True, eq=False)
class TextSet:
    """Texts by split.

    Args:
        path: as the user gave it.
        parts: by split.
        has_splits: whether the user's data has splits.
        glue: whether the splits are those of GLUE.
        facts: about the columns, for the summary.
        unused: names of files and columns that are not used, by kind.
        notes: remarks for the user.
    """

    path: str
    parts: Mapping[str, Texts]
    has_splits: bool
    glue: bool = False
    facts: tuple[str, ...] = ()
    unused: Mapping[str, tuple[str, ...]] = field(factory=dict)
    notes: tuple[str, ...] = ()

    def splits(self) -> Splits:
        """The splits by their use; a split without labels has no use if another one has labels.

        Results of GLUE are reported on the split that checkpoints are chosen on, since its tests have no labels.
        """
        labelled = [name for name, part in self.parts.items() if part.given is not None]
        if self.glue:
            val = next((name for name in ("dev", "dev_matched", "dev_mismatched") if name in self.parts), None)
            return Splits(train="train", val=val)
        return splits_by_use(labelled or self.parts)

    def open(self, split: str | None) -> Texts:
        """The texts of a split; None = of all splits.

        Raises:
            DataError: if the split does not exist or has no texts.
        """
        parts = list(self.parts.values()) if split is None else [self.parts[self._name(split)]]
        found = parts[0] if len(parts) == 1 else _joined(parts)
        if not len(found):
            raise DataError(f"data.path={self.path!r} has no texts" + (f" in the split {split}" if split else ""))
        return found

    def contents(self) -> Contents:
        """Describe the texts; raises `DataError` if there are none."""
        if not any(map(len, self.parts.values())):
            raise DataError(f"data.path={self.path!r} has no texts: its files are empty")
        train = self.parts.get(self.splits().train) or next(iter(self.parts.values()))
        facts, classes = self.facts, train.classes()
        if train.given is not None and are_numbers(train.given):
            numbers = [float(one) for one in train.given]
            facts, classes = (*facts, f"numbers from {min(numbers):g} to {max(numbers):g}"), ()
        notes = list(self.notes)
        for name, part in self.parts.items():
            if train.given is not None and part.given is None:
                notes.append(f"{name} has no labels")
            if count := part.texts.count(""):
                notes.append(f"{name} has {count} empty texts")
        return Contents(
            path=self.path,
            splits={name: len(part) for name, part in self.parts.items()},
            classes=classes,
            facts=facts,
            unused=dict(self.unused),
            notes=tuple(notes),
            unit="texts",
        )

    def _name(self, split: str) -> str:
        alike = [name for name in self.parts if split_name(split) is not None and split_name(name) == split_name(split)]
        if split in self.parts or alike:
            return split if split in self.parts else alike[0]
        have = ", ".join(self.parts)
        why = "" if self.has_splits else "; a folder of train, val and test files or a column split has splits"
        raise DataError(
            f"data.path={self.path!r} has no split {split!r}; it has {have}{nearest(split, self.parts)}{why}"
        )


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


def _joined(parts: list[Texts]) -> Texts:
    """All texts; without labels if some have none."""
    every = [part for part in parts if len(part)]
    labelled = all(part.given is not None for part in every)
    paired = all(part.pairs is not None for part in every)
    return Texts(
        texts=[one for part in every for one in part.texts],
        pairs=[one for part in every for one in part.pairs or ()] if paired else None,
        given=[one for part in every for one in part.given or ()] if labelled else None,
        places=[one for part in every for one in part.places],
    )


def _place(name: str) -> tuple[int, str]:
    use = use_of(name)
    return (len(SPLITS) if use is None else SPLITS.index(use), name)


def _without_surrogates(text: str) -> str:
    """JSON may hold lone surrogates, which have no bytes; tokenizing names them."""
    return text.encode(errors="replace").decode() if not text.isascii() else text
