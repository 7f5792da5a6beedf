"""Official files of GLUE (Wang et al. 2019, arXiv:1804.07461): which columns they have, and lines that are left out.

The files are tab-separated and not quoted. Columns are read by their numbers, as in the original toolkit.
"""

from pathlib import Path
from typing import Literal, get_args

from attrs import frozen

from d2v.core.data import DataError, escaped
from d2v.text.sentences.columns import Columns
from d2v.text.sentences.reading import Cell, Table, line_error, read_text

GlueTask = Literal["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst_2", "sts_b"]
GLUE_TASKS: tuple[GlueTask, ...] = get_args(GlueTask)
NAMES = Columns(text="text", pair="text_pair", label="label")


@frozen(kw_only=True)
class Layout:
    """Columns of a task's files, from 1.

    Args:
        text: columns of the text, or of both texts.
        label: column of the label in `train.tsv`.
        dev_label: the same in the other labelled files; None = as in `train.tsv`.
        test: columns in `test.tsv`; () = as in the others.
        header: whether `train.tsv` and `dev.tsv` have one; `test.tsv` always has.
        cells: number of cells of a line; lines with others are left out, outside of `test.tsv`. None = any number.
        splits: names of the files that are not for training.
    """

    text: tuple[int, ...]
    label: int
    dev_label: int | None = None
    test: tuple[int, ...] = ()
    header: bool = True
    cells: int | None = None
    splits: tuple[str, ...] = ("dev", "test")


LAYOUTS: dict[GlueTask, Layout] = {
    "cola": Layout(text=(4,), label=2, test=(2,), header=False),
    "mnli": Layout(
        text=(9, 10),
        label=12,
        dev_label=16,
        splits=("dev_matched", "dev_mismatched", "test_matched", "test_mismatched"),
    ),
    "mrpc": Layout(text=(4, 5), label=1),
    "qnli": Layout(text=(2, 3), label=4),
    "qqp": Layout(text=(4, 5), label=6, test=(2, 3), cells=6),
    "rte": Layout(text=(2, 3), label=4),
    "sst_2": Layout(text=(1,), label=2, test=(2,)),
    "sts_b": Layout(text=(8, 9), label=10),
}


def glue_files(path: str, task: GlueTask) -> dict[str, str]:
    """Files of a task by split, of a folder or of one file.

    Raises:
        DataError: if there is no such file.
    """
    names = ("train", *LAYOUTS[task].splits)
    if Path(path).is_file():
        stem = Path(path).stem
        if stem not in names:
            raise DataError(f"{escaped(path)}: files of data.glue={task} are named {', '.join(names)}, with .tsv")
        return {stem: path}
    found = {name: str(file) for name in names if (file := Path(path) / f"{name}.tsv").is_file()}
    if not found:
        raise DataError(
            f"data.path={path!r} has no {names[0]}.tsv: data.glue={task} reads the official files, as `d2v data glue` "
            "prepares them; for other files set data.glue=null"
        )
    return found


def read_glue(path: str, task: GlueTask, split: str) -> tuple[Table, int]:
    """Read an official file; return its texts and labels, and the number of lines that are left out.

    Raises:
        DataError: naming a line that has too few cells.
    """
    layout = LAYOUTS[task]
    is_test = split.startswith("test")
    label = None if is_test else layout.label if split == "train" else layout.dev_label or layout.label
    places = (layout.test if is_test and layout.test else layout.text) + (() if label is None else (label,))
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    rows: list[tuple[Cell, ...]] = []
    numbers: list[int] = []
    left_out = 0
    for number, line in enumerate(lines, 1):
        if (number == 1 and (layout.header or is_test)) or (number == len(lines) and not line):
            continue
        cells = line.split("\t")
        if layout.cells is not None and not is_test and len(cells) != layout.cells:
            left_out += 1
            continue
        if len(cells) < max(places):
            raise line_error(
                path, number, f"{len(cells)} columns, but {task} has at least {max(places)}; is it {task}?"
            )
        rows.append(tuple(cells[place - 1] for place in places))
        numbers.append(number)
    columns = [NAMES.text, NAMES.pair][: len(layout.text)] + ([] if label is None else [NAMES.label])
    return Table(path=path, columns=tuple(map(str, columns)), rows=rows, lines=numbers), left_out


def glue_columns(table: Table) -> Columns:
    """The columns of a table of `read_glue`."""
    pair, label = (name if name in table.columns else None for name in (NAMES.pair, NAMES.label))
    return Columns(text=NAMES.text, pair=pair, label=label)
