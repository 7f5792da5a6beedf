"""How subfolders are interpreted: as splits, classes or neither, and how the rest is reported."""

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from d2v.core.data import Contents, DataError, Splits
from d2v.core.data.folders.layout import split_name
from d2v.core.labels import Classes
from d2v.vision import ImageDataConfig


def fill(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), len(name)).save(path)


def config(path: Path | str, **options: object) -> ImageDataConfig:
    return ImageDataConfig(**{"path": str(path), "size": 8, "num_workers": 0, **options})  # type: ignore[arg-type]


def contents(path: Path | str) -> Contents:
    return config(path).contents()


def unused(path: Path) -> set[str]:
    return {name for names in contents(path).unused.values() for name in names}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"),
        ("TRAINING", "train"),
        ("train_set", "train"),
        ("train2017", "train"),
        ("Training-Images", "train"),
        ("valid", "val"),
        ("Validation", "val"),
        ("dev", "val"),
        ("eval", "val"),
        ("Testing", "test"),
        ("test_data", "test"),
        ("TESTSET", "test"),
        ("trainer", None),
        ("contest", None),
        ("value", None),
        ("cat", None),
        ("2017", None),
        ("set", None),
    ],
)
def test_spellings(name: str, split: str | None) -> None:
    assert split_name(name) == split


def test_splits_of_other_spellings_are_splits(tmp_path: Path) -> None:
    fill(tmp_path, "Training/cat/0.png", "Training/dog/0.png", "Valid/cat/1.png", "TESTING/dog/2.png", "extra/0.png")
    (tmp_path / "README.md").write_text("about")
    data = config(tmp_path)
    assert data.splits() == Splits(train="train", val="val", test="test")
    assert data.labels(Classes) == Classes(("cat", "dog"))
    found = data.contents()
    assert (dict(found.splits), found.classes) == ({"train": 2, "val": 1, "test": 1}, ("cat", "dog"))
    assert unused(tmp_path) == {"extra/", "README.md"}
    (batch,) = data.build("validation", batch_size=4)
    loader = data.build("test", batch_size=4)
    assert (batch.size, loader.name(0)) == (1, "TESTING/dog/2.png")
    (batch,) = loader
    assert batch.labels.tolist() == [1], "numbered as in training, though it has one class only"
    assert len(list(data.build(None, batch_size=1))) == 4


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/a/0.png", "val/a/0.png", "valid/a/0.png"], ["val, valid", "rename"]),
        (["test/0.png", "cat/0.png", "dog/0.png"], ["test", "cat, dog", "rename"]),
        (["train/0.png", "bus/0.png", "car/0.png"], ["train", "bus, car", "rename"]),
        (["test/0.png", "dev/0.png", "cat/0.png"], ["dev, test|test, dev|val", "cat", "rename"]),
        (["seg_train/a/0.png", "seg_test/a/0.png", "seg_pred/0.png"], ["seg_train to train", "seg_test to test"]),
        (["train/a/0.png", "train/b/0.png", "my_test/a/0.png"], ["my_test to test"]),
        (["archive/train/a/0.png", "archive/test/a/0.png"], ["data.path=.*archive"]),
        (["archive/data/Train/a/0.png", "archive/data/notes/"], ["data.path=.*archive/data"]),
        (["archive/train/a/0.png", "archive/test/a/0.png", "docs/0.png"], ["data.path=.*archive"]),
        (["cat/train/0.png", "cat/test/0.png", "dog/train/0.png", "dog/test/0.png"], ["(train|test)/cat"]),
    ],
)
def test_what_is_unclear_is_refused_with_what_to_change(tmp_path: Path, names: list[str], words: list[str]) -> None:
    fill(tmp_path, *(name for name in names if not name.endswith("/")))
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    data = config(tmp_path)
    for ask in (data.contents, data.splits, lambda: data.build("train", batch_size=1), lambda: data.labels(Classes)):
        for word in words:
            with pytest.raises(DataError, match=f"data.path=.*(?:{word})"):
                ask()


def test_a_folder_without_the_split_train_is_noted(tmp_path: Path) -> None:
    fill(tmp_path, "val/cat/0.png", "test/cat/0.png", "test/dog/0.png")
    assert "no split train" in contents(tmp_path).line()


def test_a_wrapped_folder_of_classes_is_noted(tmp_path: Path) -> None:
    fill(tmp_path, "pets/cat/0.png", "pets/dog/0.png")
    found = contents(tmp_path)
    assert (found.classes, len(found.notes)) == (("pets",), 1)
    assert f"data.path={tmp_path}/pets" in found.line()


def test_what_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(2)), "preview.png")
    fill(
        tmp_path, "__MACOSX/cat/0.png", ".ipynb_checkpoints/0.png", "run/plots/0.png", "cat/._0.png", "dog/x.png/1.png"
    )
    (tmp_path / "run/model").mkdir()
    (tmp_path / "run/config.yaml").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat/Thumbs.db").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("x")
    data = config(tmp_path)
    assert data.labels(Classes) == Classes(("cat", "dog"))
    loader = data.build(None, batch_size=8)
    names = ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/x.png/1.png"]
    assert [loader.name(i) for i in range(len(loader.samples))] == names
    left = {
        "preview.png",
        "__MACOSX",
        ".ipynb_checkpoints",
        "run",
        "cat/._0.png",
        "empty",
        "cat/Thumbs.db",
        "labels.csv",
    }
    assert unused(tmp_path) == left
    line = data.contents().line()
    assert "\n" not in line
    assert ".csv files 1 (labels.csv)" in line


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["a/0.png", "b/0.png", "c.png"], ("a", "b")),
        (["a/0.png", "b/0.png", "c.png", "d.png"], ("a", "b")),
        (["a/0.png", "b/0.png", "c.png", "d.png", "e.png"], ()),
        (["a/0.png", "a/1.png", "c.png"], ()),
        (["a/0.png"], ("a",)),
        (["a.png"], ()),
    ],
)
def test_images_beside_class_folders(tmp_path: Path, names: list[str], classes: tuple[str, ...]) -> None:
    fill(tmp_path, *names)
    found = contents(tmp_path)
    assert found.classes == classes
    assert sum(found.splits.values()) + sum(map(len, found.unused.values())) == len(names)


def test_one_class_in_two_unicode_forms(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(tmp_path, f"train/{one}/0.png", "train/tea/0.png", f"val/{two}/0.png", f"val/{one}/1.png")
    data = config(tmp_path)
    assert data.labels(Classes) == Classes((one, "tea"))
    (batch,) = data.build("val", batch_size=2, labels=Classes(("tea", two)))
    assert batch.labels.tolist() == [1, 1]


def test_every_real_file_once(tmp_path: Path) -> None:
    fill(tmp_path / "s", "cat/0.png", "cat/1.png", "dog/0.png")
    fill(tmp_path / "pool", "bird/0.png", "fish.png")
    links = {
        "s/cat/me": "s/cat",
        "s/dog/up": ".",
        "s/dog/over": "s",
        "s/apes": "s/dog",
        "s/bird": "pool/bird",
        "s/bird2": "pool/bird",
        "s/cat/same.png": "s/cat/0.png",
        "s/cat/fish.png": "pool/fish.png",
        "s/dog/fish.png": "pool/fish.png",
        "s/cat/gone.png": "pool/gone.png",
        "s/dog/loop.png": "s/dog/loop.png",
    }
    for name, target in links.items():
        path = tmp_path / name
        path.symlink_to(os.path.relpath(tmp_path / target, path.parent))
    loader = config(tmp_path / "s").build(None, batch_size=1)
    names = [loader.name(i) for i in range(len(loader.samples))]
    assert names == ["bird/0.png", "cat/0.png", "cat/1.png", "cat/fish.png", "dog/0.png"]
    left = {
        "cat/me",
        "dog/up",
        "dog/over",
        "apes",
        "bird2",
        "cat/same.png",
        "dog/fish.png",
        "cat/gone.png",
        "dog/loop.png",
    }
    assert unused(tmp_path / "s") == left


def test_a_split_may_be_a_link_to_a_folder_beside_it(tmp_path: Path) -> None:
    fill(tmp_path, "raw/one/cat/0.png", "raw/two/cat/1.png")
    (tmp_path / "train").symlink_to("raw/one")
    (tmp_path / "val").symlink_to("raw/two")
    found = contents(tmp_path)
    assert dict(found.splits) == {"train": 1, "val": 1}
    assert unused(tmp_path) == {"raw/"}


def test_unreadable_folders_and_special_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "cat/0.png", "dog/0.png", "dog/shut/0.png")
    os.mkfifo(tmp_path / "cat/pipe.png")
    listed = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr("os.scandir", refuse)
    assert unused(tmp_path) == {"cat/pipe.png", "dog/shut"}
    assert sum(contents(tmp_path).splits.values()) == 2


def test_nothing_but_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("P5 is no image")
    with pytest.raises(DataError, match=r"no images.*\.txt files 1"):
        contents(tmp_path)


def test_built_in_sets() -> None:
    assert dict(contents("fashion-mnist").splits) == {"train": 10000, "val": 2000, "test": 2000}
