"""Files of labelled texts: forms, columns, splits, the official files of GLUE, and bad input."""

import json
from pathlib import Path

import pytest

from d2v.core.data import DataError
from d2v.text.sentences.columns import find_columns
from d2v.text.sentences.glue import GLUE_TASKS, GlueTask
from d2v.text.sentences.opening import open_texts
from d2v.text.sentences.reading import Table, read_table
from d2v.text.sentences.text_set import Texts, TextSet, are_numbers


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def opened(path: Path, **options: str | bool) -> TextSet:
    return open_texts(str(path), **options)  # type: ignore[arg-type]


def only(path: Path, **options: str | bool) -> Texts:
    (part,) = opened(path, **options).parts.values()
    return part


CSV = 'text,label\n"a, b",x\n"with ""quotes"" and\na line break",y\n\nplain,x\n'
EXPECTED = ["a, b", 'with "quotes" and\na line break', "plain"]


def test_a_csv_file(tmp_path: Path) -> None:
    texts = only(write(tmp_path / "a.csv", CSV))
    assert texts.texts == EXPECTED
    assert texts.given == ["x", "y", "x"]
    assert [texts.name(id) for id in range(3)] == ["a.csv:2", "a.csv:3", "a.csv:6"]


@pytest.mark.parametrize(
    "content",
    [CSV.replace("\n", "\r\n").replace("and\r\n", "and\n"), "\ufeff" + CSV],
    ids=["Windows line ends", "byte-order mark"],
)
def test_other_bytes_of_the_same_table(tmp_path: Path, content: str) -> None:
    assert only(write(tmp_path / "a.csv", content)).texts == EXPECTED


def test_a_tsv_file_is_not_quoted(tmp_path: Path) -> None:
    texts = only(write(tmp_path / "a.tsv", 'label\tsentence\nx\t"Yes, he said.\r\ny\t2" of "rain"\n'))
    assert texts.texts == ['"Yes, he said.', '2" of "rain"']
    assert texts.given == ["x", "y"]


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"premise": "a", "hypothesis": "b", "label": 1}, {"label": 0, "hypothesis": "d", "premise": "c", "id": 7}]
    texts = only(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert (texts.texts, texts.pairs, texts.given) == (["a", "c"], ["b", "d"], ["1", "0"])


def test_a_text_a_line(tmp_path: Path) -> None:
    texts = only(write(tmp_path / "a.txt", "one, two\n\n  three \r\n"))
    assert texts.texts == ["one, two", "three"]
    assert texts.given is None
    assert texts.name(1) == "a.txt:3"


def test_columns_by_number(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "x\tfirst\ny\tsecond\n")
    texts = only(file, text="2", label="1", header=False)
    assert (texts.texts, texts.given) == (["first", "second"], ["x", "y"])


def table(*columns: str) -> Table:
    return Table(path="a.csv", columns=columns, rows=[], lines=[])


@pytest.mark.parametrize(
    ("columns", "text", "pair", "label"),
    [
        (("id", "Text", "Label"), "Text", None, "Label"),
        (("sentence1", "sentence2", "score"), "sentence1", "sentence2", "score"),
        (("index", "question", "sentence", "label"), "question", "sentence", "label"),
        (("text", "text_pair"), "text", "text_pair", None),
        (("review", "stars"), "review", None, None),
    ],
)
def test_usual_names(columns: tuple[str, ...], text: str, pair: str | None, label: str | None) -> None:
    found = find_columns(table(*columns))
    assert (found.text, found.pair, found.label) == (text, pair, label)


def test_given_columns_come_first() -> None:
    found = find_columns(table("text", "title", "label", "stars"), text="title", label="stars")
    assert (found.text, found.label, found.guessed) == ("title", "stars", ())
    assert find_columns(table("text", "label"), text="text", label="topic").label is None, "new texts lack the label"


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        (("a", "b"), {}, ["'a', 'b'", "data.text", "data.header=false"]),
        (("text", "sentence"), {}, ["'text', 'sentence'", "set data.text"]),
        (("text", "label", "class"), {}, ["'label', 'class'", "set data.label"]),
        (("title", "label"), {"text": "titel"}, ["data.text='titel'", "did you mean 'title'"]),
        (("text", "b"), {"text": "text", "pair": "c"}, ["data.text_pair='c'"]),
        (("text", "b"), {"pair": "b"}, ["data.text_pair='b' needs data.text"]),
    ],
)
def test_wrong_columns(columns: tuple[str, ...], options: dict[str, str], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        find_columns(table(*columns), **options)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\na,x,3\n", ["line 2", "3 cells", "has 2"]),
        ("a.csv", 'text,label\n"a,x\n', ["quote"]),
        ("a.csv", "text,text\na,x\n", ["twice"]),
        ("a.csv", "text,label\na,x\nb,\n", ["line 3", "no label"]),
        ("a.csv", "text,split\na,later\n", ["line 2", "'later' is not a split"]),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', ["line 2", "not JSON"]),
        ("a.jsonl", '{"text": "a"}\n[1]\n', ["line 2", "object"]),
        ("a.jsonl", '{"text": "a"}\n{"txt": "a"}\n', ["line 2", "no text"]),
        ("a.csv", b"text,label\na,x\n\xe9t\xe9,y\n", ["line 3", "byte 15", "UTF-8"]),
        ("a.csv", b"text,label\na\0b,x\n", ["line 2", "NUL"]),
        ("a.csv", "text\n".encode("utf-16"), ["UTF-16"]),
        ("a.parquet", "PAR1", [".csv"]),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: str | bytes, words: list[str]) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        opened(file)
    assert all(word in str(caught.value) for word in [name, *words]), caught.value


@pytest.mark.parametrize("content", ["", "text,label\n", "\n\n"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"no texts|columns none"):
        opened(write(tmp_path / "a.csv", content)).contents()


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        opened(tmp_path / "nothing")


def test_splits_of_a_folder(tmp_path: Path) -> None:
    for name, label in (("train.csv", "x"), ("valid.csv", "y"), ("test.csv", "x")):
        write(tmp_path / name, f"text,label\n{name},{label}\n")
    write(tmp_path / "README.md", "about")
    found = opened(tmp_path)
    splits = found.splits()
    assert (splits.train, splits.val, splits.test) == ("train", "val", "test")
    assert found.open("valid").texts == ["valid.csv"]
    assert found.open(None).given == ["x", "y", "x"]
    assert dict(found.contents().unused) == {"files": ("README.md",)}
    with pytest.raises(DataError, match=r"no split 'tran'.*did you mean 'train'"):
        found.open("tran")


def test_a_split_without_labels_is_not_reported_on(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\na,x\nb,y\n")
    write(tmp_path / "dev.csv", "text,label\na,x\n")
    write(tmp_path / "test.csv", "text,id\nc,1\n")
    found = opened(tmp_path)
    assert (found.splits().val, found.splits().test) == (None, "val")
    assert "test has no labels" in found.contents().notes
    write(tmp_path / "dev.csv", "text,id\na,x\n")
    with pytest.raises(DataError, match=r"dev.csv has no column 'label'"):
        opened(tmp_path)


def test_a_column_of_splits(tmp_path: Path) -> None:
    found = opened(write(tmp_path / "a.csv", "text,label,split\na,x,train\nb,y,test\nc,y,Train\n"))
    assert {name: part.texts for name, part in found.parts.items()} == {"train": ["a", "c"], "test": ["b"]}


def test_a_folder_without_named_files(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", "text,label\na,x\n")
    with pytest.raises(DataError, match=r"reviews.csv.*give one of them"):
        opened(tmp_path)
    write(tmp_path / "train.csv", "text,label\na,x\n")
    write(tmp_path / "train.tsv", "text\tlabel\na\tx\n")
    with pytest.raises(DataError, match="are both the split 'train'"):
        opened(tmp_path)


def test_what_is_known_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "text,label,id\na,2.5,1\nb,0.5,2\n")
    line = opened(file).contents().line()
    assert "'text' (text), 'label' (label); choose others with data.text, data.label" in line
    assert "numbers from 0.5 to 2.5" in line
    assert "not used: columns 1 (id)" in line


def test_numbers_are_told_from_classes() -> None:
    assert not are_numbers(["1"] * 5 + ["2"] * 5)
    assert are_numbers([str(n) for n in range(9)])
    assert not are_numbers(["nan?", "1.5"])


# GLUE

LINE = {
    "cola": "src\t1\t\tA sentence .",
    "mnli": "\t".join(["0", *"bcdefgh", "first", "second", "l1", "entailment"]),
    "mrpc": "1\t17\t18\tfirst\tsecond",
    "qnli": "0\tfirst\tsecond\tentailment",
    "qqp": "0\t1\t2\tfirst\tsecond\t1",
    "rte": "0\tfirst\tsecond\tnot_entailment",
    "sst_2": "a film \t1",
    "sts_b": "\t".join(["0", *"bcdefg", "first", "second", "3.800"]),
}
LABEL = {"cola": "1", "mnli": "entailment", "mrpc": "1", "qnli": "entailment", "qqp": "1", "rte": "not_entailment",
         "sst_2": "1", "sts_b": "3.800"}  # fmt: skip
TEST_LINE = {
    **LINE,
    "cola": "0\tA sentence .",
    "mnli": "\t".join(["0", *"bcdefgh", "first", "second"]),
    "mrpc": "0\t17\t18\tfirst\tsecond",
    "qnli": "0\tfirst\tsecond",
    "qqp": "0\tfirst\tsecond",
    "rte": "0\tfirst\tsecond",
    "sst_2": "0\ta film",
    "sts_b": "\t".join(["0", *"bcdefg", "first", "second"]),
}


def glue_folder(folder: Path, task: GlueTask) -> Path:
    """Official files of two lines each; the header has the same number of columns."""
    header = "" if task == "cola" else "\t".join("h" * (LINE[task].count("\t") + 1)) + "\n"
    dev = LINE[task] if task != "mnli" else "\t".join([*LINE[task].split("\t")[:-1], *"abcd", "neutral"])
    names = ["dev", "test"] if task != "mnli" else ["dev_matched", "dev_mismatched", "test_matched", "test_mismatched"]
    write(folder / "train.tsv", header + f"{LINE[task]}\n" * 2)
    for name in names:
        is_test = name.startswith("test")
        head = "\t".join("h" * (TEST_LINE[task].count("\t") + 1)) + "\n" if is_test else header
        write(folder / f"{name}.tsv", head + f"{TEST_LINE[task] if is_test else dev}\n" * 2)
    return folder


@pytest.mark.parametrize("task", GLUE_TASKS)
def test_the_official_files(tmp_path: Path, task: GlueTask) -> None:
    found = opened(glue_folder(tmp_path, task), glue=task)
    single = {"cola": "A sentence .", "sst_2": "a film"}
    for name, part in found.parts.items():
        assert len(part) == 2, name
        assert part.texts[0] == single.get(task, "first"), name
        assert part.pairs == (None if task in single else ["second"] * 2), name
        wanted = None if name.startswith("test") else "neutral" if "matched" in name else LABEL[task]
        assert part.given == (None if wanted is None else [wanted] * 2), name
    splits = found.splits()
    assert splits.test is None
    assert splits.val == ("dev_matched" if task == "mnli" else "dev")


def test_quotation_marks_are_letters(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", 'q\ta\tb\tc\td\n1\t2\t3\t"Open\tclosed"\n0\t2\t3\ta "b\tc\n')
    assert opened(tmp_path, glue="mrpc").open("train").texts == ['"Open', 'a "b']


def test_broken_lines_of_qqp_are_left_out(tmp_path: Path) -> None:
    good = LINE["qqp"]
    write(tmp_path / "train.tsv", f"id\tq\tq\tq\tq\tl\n{good}\nbroken\tline\n{good}\n{good}\tmore\n\n{good}\n")
    found = opened(tmp_path, glue="qqp")
    assert len(found.open("train")) == 3
    assert "3 broken lines of train" in found.contents().line()


@pytest.mark.parametrize("task", ["rte", "sts_b", "cola"])
def test_a_line_with_too_few_columns(tmp_path: Path, task: GlueTask) -> None:
    glue_folder(tmp_path, task)
    write(tmp_path / "dev.tsv", f"{LINE[task]}\n{LINE[task]}\na\tb\n")
    with pytest.raises(DataError, match="line 3: 2 columns"):
        opened(tmp_path, glue=task)


def test_a_folder_of_another_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train.tsv.*data.glue=null"):
        opened(tmp_path, glue="rte")
    file = write(tmp_path / "mine.tsv", "a\tb\n")
    with pytest.raises(DataError, match="named train, dev, test"):
        opened(file, glue="rte")
    assert only(write(tmp_path / "new.txt", "some text\n"), glue="rte").texts == ["some text"]


def test_one_official_file(tmp_path: Path) -> None:
    found = opened(glue_folder(tmp_path, "rte") / "test.tsv", glue="rte")
    assert list(found.parts) == ["test"]
    assert read_table(str(write(tmp_path / "t.tsv", "a\tb\n1\t2\n"))).columns == ("a", "b")
