"""Sets of torchvision, from files that are written here."""

import struct
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from d2v.core.data import DataError, Splits
from d2v.core.labels import Classes
from d2v.vision import ImageDataConfig
from d2v.vision.torchvision_sets import torchvision_splits


def write_fashion(root: Path, counts: dict[str, int]) -> None:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, n in counts.items():
        pixels = np.arange(n, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + pixels.tobytes())
        labels = (np.arange(n) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())


def config(name: str, root: Path, **options: object) -> ImageDataConfig:
    values = {"path": f"torchvision:{name}:{root}", "size": 28, "resize": 28, "channels": 1, "num_workers": 0}
    return ImageDataConfig(**values | options)  # type: ignore[arg-type]


def names(data: ImageDataConfig) -> tuple[str, ...]:
    labels = data.labels(Classes)
    assert isinstance(labels, Classes)
    return labels.names


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    write_fashion(tmp_path, {"train": 30, "t10k": 7})
    return tmp_path


def test_train_and_test(fashion: Path) -> None:
    data = config("FashionMNIST", fashion)
    assert data.splits() == Splits(train="train", test="test")
    assert names(data)[:2] == ("T-shirt/top", "Trouser")
    loader = data.build("test", batch_size=7)
    (batch,) = loader
    assert batch.source.shape == (7, 1, 28, 28)
    assert batch.labels.tolist() == list(range(7))
    assert torch.allclose(batch.source[3], torch.tensor((3 / 255 - 0.449) / 0.226))
    assert loader.name(3) == "torchvision:FashionMNIST/test/3"
    assert len(data.build(None, batch_size=1)) == 7
    training = data.build("train", batch_size=10, training=True)
    assert len(training) == 3
    assert next(iter(training)).source.shape == (10, 1, 28, 28)


def test_in_workers_and_in_colour(fashion: Path) -> None:
    data = config("FashionMNIST", fashion, num_workers=1, channels=3, per_class=1)
    batch = next(iter(data.build("train", batch_size=10, training=True)))
    assert batch.source.shape == (10, 3, 28, 28)
    assert sorted(batch.labels.tolist()) == list(range(10))


def test_classes_of_a_model(fashion: Path) -> None:
    data = config("FashionMNIST", fashion)
    turned = data.build("test", batch_size=7, labels=Classes(tuple(reversed(names(data)))))
    (batch,) = turned
    assert batch.labels.tolist() == [9 - label for label in range(7)]


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"torchvision:FashionMNIST:.*not found.*downloads nothing"):
        config("FashionMNIST", tmp_path / "nothing").build("train", batch_size=1)
    assert not (tmp_path / "nothing").exists()


def test_truncated_files(fashion: Path) -> None:
    path = fashion / "FashionMNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"FashionMNIST:.*'train'"):
        config("FashionMNIST", fashion).build("train", batch_size=1)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torchvision:FashionMNITS:data", "'FashionMNITS'.*'FashionMNIST'"),
        ("torchvision:VisionDataset.__init__:data", "no data set 'VisionDataset.__init__'"),
        ("torchvision:wrap_dataset_for_transforms_v2:data", "no data set 'wrap_dataset_for_transforms_v2'"),
        ("torchvision:FashionMNIST", "NAME:FOLDER, for example torchvision:FashionMNIST:data"),
        ("torchvision::data", "NAME:FOLDER"),
        ("torchvision:Kinetics:data", "Kinetics .*frames_per_clip"),
        ("torchvision:CocoCaptions:data", "CocoCaptions .*annFile"),
    ],
)
def test_bad_names(path: str, message: str) -> None:
    data = ImageDataConfig(path=path)
    for ask in (data.splits, lambda: data.labels(Classes), lambda: data.build("train", batch_size=1)):
        with pytest.raises(DataError, match=message):
            ask()


def test_bad_splits(fashion: Path) -> None:
    with pytest.raises(DataError, match=r"'tests'.*train, test.*'test'"):
        config("FashionMNIST", fashion).build("tests", batch_size=1)
    with pytest.raises(DataError, match=r"STL10:.*'foo'"):
        config("STL10", fashion).build("foo", batch_size=1)


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("CIFAR10", Splits(train="train", test="test")),
        ("SVHN", Splits(train="train", test="test")),
        ("ImageNet", Splits(train="train", test="val")),
        ("Flowers102", Splits(train="train", val="val", test="test")),
        ("EuroSAT", Splits(train="train")),
    ],
)
def test_splits_by_signature(name: str, splits: Splits) -> None:
    assert torchvision_splits(f"torchvision:{name}:data") == splits


def test_a_set_without_parts_is_the_split_train(tmp_path: Path) -> None:
    for name in ("b/0.png", "a/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (28, 28)).save(tmp_path / name)
    data = config("ImageFolder", tmp_path)
    assert data.labels(Classes) == Classes(("a", "b"))
    (batch,) = data.build("train", batch_size=2)
    assert batch.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"data.hold_out=0"):
        data.build("test", batch_size=1)
    with pytest.raises(DataError, match=r"'test'.* train$"):
        attrs.evolve(data, hold_out=0.0).build("test", batch_size=1)


def test_a_broken_picture_is_listed(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", (28, 28)).save(tmp_path / f"a/{i}.png")
    (tmp_path / "a/0.png").write_text("not an image")
    loader = config("ImageFolder", tmp_path).build("train+test", batch_size=3)
    assert [batch.size for batch in loader] == [2]
    assert list(loader.broken) == ["torchvision:ImageFolder/train/0"]


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ImageDataConfig]:
    """Data of a set of torchvision's that gives these labels, with more attributes."""

    def make(*labels: object, **attributes: object) -> ImageDataConfig:
        class Set:
            def __init__(self, root: str) -> None:
                vars(self).update(attributes)

            def __len__(self) -> int:
                return len(labels)

            def __getitem__(self, id: int) -> object:
                return Image.new("RGB", (28, 28)), labels[id]

        monkeypatch.setattr("torchvision.datasets.EuroSAT", Set)
        return config("EuroSAT", tmp_path)

    return make


def test_a_set_that_is_no_classification(made_up: Callable[..., ImageDataConfig]) -> None:
    with pytest.raises(DataError, match="one class each"):
        made_up({"boxes": []}, {"boxes": []}).build("train", batch_size=1)


@pytest.mark.parametrize(
    ("field", "labels"),
    [("labels", np.array([0, 2])), ("_labels", np.array([0, 2])), ("_samples", [("x", 0), ("x", 2)])],
)
def test_names_are_numbers_where_a_set_has_none(
    made_up: Callable[..., ImageDataConfig], field: str, labels: object
) -> None:
    assert names(made_up(0, 2, **{field: labels})) == ("0", "1", "2")


def test_classes_of_one_name_stay_apart(made_up: Callable[..., ImageDataConfig]) -> None:
    data = made_up(0, 1, 2, classes=(("crane",), ("tench", "Tinca tinca"), ("crane",)), targets=(0, 1, 2))
    assert names(data) == ("crane (0)", "tench, Tinca tinca", "crane (2)")
    (batch,) = data.build("train", batch_size=3, labels=data.labels(Classes))
    assert batch.labels.tolist() == [0, 1, 2]
