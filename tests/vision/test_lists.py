"""One image or a list of images in place of a folder."""

from pathlib import Path

import pytest
from PIL import Image

from d2v.core.data import DataError, Splits
from d2v.core.labels import Classes
from d2v.vision import ImageDataConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x").mkdir()
    for number in range(4):
        Image.new("L", (8, 8), 50 * number).save(tmp_path / f"x/{number}.png")
    return tmp_path


def config(path: Path) -> ImageDataConfig:
    return ImageDataConfig(path=str(path), size=8, num_workers=0)


def test_one_image(folder: Path) -> None:
    data = config(folder / "x/2.png")
    loader = data.build(None, batch_size=4)
    (batch,) = loader
    assert (batch.size, loader.name(0)) == (1, "2.png")
    assert dict(data.contents().splits) == {"train": 1}


def test_a_list_keeps_its_order_and_counts_what_is_missing(folder: Path) -> None:
    text = "\ufeffx/3.png\r\n\nx/0.png\nx/gone.png\n./x/3.png\nx\n" + str(folder / "x/1.png")
    (folder / "list.txt").write_text(text, encoding="utf-8")
    data = config(folder / "list.txt")
    loader = data.build(None, batch_size=8)
    (batch,) = loader
    assert [loader.name(id) for id in batch.ids.tolist()] == ["x/3.png", "x/0.png", str(folder / "x/1.png")]
    assert len(loader.broken) == 2
    assert data.contents().unused == {"lines that repeat an image": ("line 5: ./x/3.png",)}


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_table_with_labels_and_splits(folder: Path, ending: str) -> None:
    rows = ["path,label,split,who", "x/0.png,dog,Training,me", "x/1.png,cat,train,you", "", "x/2.png,dog,valid,me"]
    (folder / f"t.{ending}").write_text("\n".join(rows).replace(",", "," if ending == "csv" else "\t"))
    data = config(folder / f"t.{ending}")
    assert data.splits() == Splits(train="train", test="val")
    assert data.labels(Classes) == Classes(("cat", "dog"))
    (train,), (val,) = (data.build(split, batch_size=4) for split in ("train", "val"))
    assert (train.labels.tolist(), val.labels.tolist()) == ([1, 0], [1])
    assert data.contents().unused == {"columns": ("who",)}


def test_a_table_without_splits_is_for_training(folder: Path) -> None:
    (folder / "t.csv").write_text('label,path\n"a, b",x/0.png\nc,"x/1.png"\n')
    data = config(folder / "t.csv")
    assert data.labels(Classes) == Classes(("a, b", "c"))
    (batch,) = data.build(None, batch_size=4)
    assert batch.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", b"file,class\nx/0.png,cat\n", 1),
        ("a.csv", b"path,label\nx/0.png\n", 2),
        ("a.csv", b"path,label\nx/0.png,cat\nx/1.png,\n", 3),
        ("a.csv", b"path,label\n\n,cat\n", 3),
        ("a.csv", b"path,split\nx/0.png,tomorrow\n", 2),
        ("a.csv", b"path,label\nx/0.png,cat\nx/0.png,dog\n", 3),
        ("a.csv", b'path,label\n"x/0.png"a,cat\n', 2),
        ("a.txt", "x/0.png\n".encode("utf-16"), 1),
    ],
)
def test_a_bad_list_names_the_line(folder: Path, name: str, content: bytes, line: int) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}, line {line}: "):
        config(folder / name).contents()


@pytest.mark.parametrize(("name", "word"), [("a.txt", "no images"), ("a.json", "list"), ("a.csv", "no images")])
def test_other_files(folder: Path, name: str, word: str) -> None:
    (folder / name).write_text("")
    with pytest.raises(DataError, match=word):
        config(folder / name).contents()
