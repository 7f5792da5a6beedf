"""Image data as commands use it: splits, classes and their numbers, names, few labels, and a fitting model."""

from pathlib import Path

import attrs
import pytest
import torch
from PIL import Image

from d2v.core.data import DataConfig, DataError, Loader, Splits
from d2v.core.labels import Classes, Labels, MultiLabel, Number, Symbols
from d2v.core.model import BlockConfig, TransformerConfig
from d2v.vision import ImageDataConfig

HELD_OUT = Splits(train="train", test="test", pretrain="train+test", whole="train+test")
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=8, num_heads=2), depth=2)


def save(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 12), (shade, shade, shade)).save(path)


def config(path: Path | str, **options: object) -> ImageDataConfig:
    return ImageDataConfig(**{"path": str(path), "size": 8, "num_workers": 0, **options})  # type: ignore[arg-type]


def labels(loader: Loader[object]) -> list[int] | None:
    (batch,) = loader
    return None if batch.labels is None else batch.labels.tolist()


def test_it_keeps_the_contract() -> None:
    data: DataConfig = config("digits")
    assert data.path == "digits"


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train", "val", "test"], Splits(train="train", val="val", test="test")),
        (["train", "val"], Splits(train="train", test="val")),
        (["train", "test"], Splits(train="train", test="test")),
        (["train"], HELD_OUT),
        (["val"], Splits(train="train", test="val")),
        (["cat", "dog"], HELD_OUT),
        ([], HELD_OUT),
    ],
)
def test_splits_of_folders(tmp_path: Path, folders: list[str], splits: Splits) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert config(tmp_path).splits() == splits


def test_splits_of_sets() -> None:
    assert config("fashion-mnist").splits() == Splits(train="train", val="val", test="test")
    assert config("digits").splits() == Splits(train="train", test="test")
    with pytest.raises(DataError, match=r"built-in set .*'digits'"):
        config("digit").splits()


def test_splits_must_differ() -> None:
    with pytest.raises(ValueError, match="splits train, val, val"):
        Splits(train="train", val="val", test="val")


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    save(tmp_path / "plain/cat/1.png")
    with pytest.raises(DataError, match=r"'val'.*'train'"):
        config(tmp_path / "plain").build("val", batch_size=1)
    save(tmp_path / "one/train/cat/1.png")
    with pytest.raises(DataError, match=r"'test'.*train$"):
        config(tmp_path / "one", hold_out=0.0).build("test", batch_size=1)
    save(tmp_path / "other/val/cat/1.png")
    for ask in (lambda data: data.build("train", batch_size=1), lambda data: data.labels(Classes)):
        with pytest.raises(DataError, match=r"'train'.*val$"):
            ask(config(tmp_path / "other"))


def test_names_are_paths_below_the_folder_of_the_user(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/a b.png", "val/cat/3.png", "val/dog/sub/4.png"):
        save(tmp_path / name)
    data = config(tmp_path)
    assert [data.build("train", batch_size=1).name(i) for i in (0, 1)] == ["train/cat/1.png", "train/dog/a b.png"]
    assert data.build("val", batch_size=1).name(1) == "val/dog/sub/4.png"
    assert config(tmp_path / "train").build("train", batch_size=1).name(0) == "cat/1.png"


def test_all_of_a_folder(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "val/cat/3.png"):
        save(tmp_path / name)
    loader = config(tmp_path).build(None, batch_size=4)
    assert [loader.name(i) for i in range(2)] == ["train/cat/1.png", "val/cat/3.png"]
    assert labels(loader) is None
    assert labels(config(tmp_path / "train").build(None, batch_size=4)) == [0]
    assert config("digits").build(None, batch_size=4).name(0) == "digits/test/0"
    assert config("fashion-mnist").build(None, batch_size=4).name(0) == "fashion-mnist/test/0"


def test_numbers_follow_the_classes_of_the_model(tmp_path: Path) -> None:
    for name in ("train/dog/1.png", "train/eel/1.png", "val/eel/1.png"):
        save(tmp_path / name)
    data = config(tmp_path)
    assert data.labels(Classes) == Classes(("dog", "eel"))
    given = Classes(("eel", "ape", "dog"))
    loader = data.build("train", batch_size=4, labels=given)
    assert labels(loader) == [2, 0]
    assert labels(data.build("val", batch_size=4, labels=given)) == [0]
    with pytest.raises(DataError, match=r"'dog'.*'dogs'"):
        data.build("train", batch_size=4, labels=Classes(("dogs", "eel")))
    assert labels(data.build("val", batch_size=4)) == [1], "as the training split numbers them"
    turned = config("digits").build("test", batch_size=359, labels=Classes(tuple("9876543210")))
    plain = config("digits").build("test", batch_size=359)
    assert labels(turned) == [9 - label for label in labels(plain) or []]


def test_an_unlabelled_folder(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    save(tmp_path / "cat" / "2.png")
    data = config(tmp_path)
    assert labels(data.build("train", batch_size=4)) is None
    for ask in (
        lambda: data.labels(Classes),
        lambda: data.build("train", batch_size=4, labels=Classes(("cat", "dog"))),
    ):
        with pytest.raises(DataError, match=r"no labels.*folder"):
            ask()
    with pytest.raises(DataError, match=r"data.per_class=1 needs labels"):
        attrs.evolve(data, per_class=1).build("train", batch_size=1, training=True)


@pytest.mark.parametrize("wanted", [MultiLabel(("cat",)), Symbols(("cat",)), Number()])
def test_images_have_classes_and_nothing_else(wanted: Labels) -> None:
    for ask in (
        lambda: config("digits").labels(type(wanted)),
        lambda: config("digits").build("test", batch_size=1, labels=wanted),
    ):
        with pytest.raises(DataError, match=rf"digits.*images.*{wanted.what}"):
            ask()


def test_few_labels_of_each_class(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"train/cat/{number}.png", number)
        save(tmp_path / f"train/dog/{number}.png", 100 + number)
    data = config(tmp_path, per_class=2, crop_area=None, flip=0.0, hold_out=0.0)

    def few(seed: int, **options: object) -> dict[int, int]:
        loader = attrs.evolve(data, **options).build("train", batch_size=2, seed=seed, training=True)
        seen = {}
        for _, batch in zip(range(3 * len(loader)), loader, strict=False):
            assert batch.ids is not None
            seen |= dict(zip(batch.ids.tolist(), batch.labels.tolist(), strict=True))
        return seen

    first = few(0)
    assert sorted(first.values()) == [0, 0, 1, 1]
    assert all((id >= 6) == bool(label) for id, label in first.items()), "ids are those of the whole split"
    assert first == few(0, num_workers=1)
    assert first.keys() < few(0, per_class=3).keys()
    assert len({tuple(sorted(few(seed))) for seed in range(4)}) > 1
    assert len(list(data.build("train", batch_size=1))) == 12, "evaluation sees all"
    with pytest.raises(DataError, match=r"data.per_class=7.*'cat'"):
        few(0, per_class=7)


def test_a_picture_among_few_is_augmented_as_among_all(tmp_path: Path) -> None:
    for number in range(8):
        save(tmp_path / f"train/cat/{number}.png")
        Image.linear_gradient("L").rotate(20 * number).save(tmp_path / f"train/cat/{number}.png")

    def seen(per_class: int | None) -> dict[int, torch.Tensor]:
        loader = config(tmp_path, per_class=per_class).build("train", batch_size=1, seed=3, training=True)
        batches = [batch for _, batch in zip(range(len(loader)), loader, strict=False)]
        return {int(batch.ids): batch.source for batch in batches if batch.ids is not None}

    whole = seen(None)
    for id, image in seen(3).items():
        assert torch.equal(whole[id], image)


def test_mean_and_deviation_of_the_data_themselves(tmp_path: Path) -> None:
    save(tmp_path / "train/cat/0.png")

    def seen(**own: object) -> torch.Tensor:
        return next(iter(config(tmp_path, **own).build("train", batch_size=1))).source

    imagenet = torch.tensor([0.229, 0.224, 0.225])[:, None, None], torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    pixels = seen() * imagenet[0] + imagenet[1]
    own = seen(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    expected = (pixels - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    torch.testing.assert_close(own, expected)
    torch.testing.assert_close(seen(mean=(0.5,), std=(0.25,)), (pixels - 0.5) / 0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path.*0"),
        ({"size": 0}, "size.*0"),
        ({"channels": 2}, "channels=2.*3"),
        ({"crop_area": (0.0, 1.0)}, "crop_area=.*rising"),
        ({"crop_area": (0.5, 0.2)}, "crop_area="),
        ({"crop_area": (0.5, 1.2)}, "crop_area="),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio=.*rising"),
        ({"mean": ()}, "mean=.*channel"),
        ({"std": (0.5, 0.5)}, "std=.*channel"),
        ({"std": (0.5, float("nan"), 0.5)}, "std=.*channel"),
        ({"channels": 1, "std": (0.0,)}, r"std=\(0.0,\) must be above 0"),
        ({"flip": 1.5}, "flip.*1.5"),
        ({"flip": float("nan")}, "flip.*nan"),
        ({"resize": 7}, "resize=7.*size=8"),
        ({"num_workers": -1}, "num_workers.*-1"),
        ({"per_class": 0}, "per_class.*0"),
        ({"hold_out": 1.0}, "hold_out.*1.0"),
        ({"hold_out": -0.1}, "hold_out.*-0.1"),
        ({"hold_out_seed": -1}, "hold_out_seed.*-1"),
    ],
)
def test_values_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**{"path": "digits", **options})  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    for call in ("os.scandir", "os.stat"):
        for ask in (lambda data: data.splits(), lambda data: data.labels(Classes), lambda data: data.contents()):
            with monkeypatch.context() as patch:
                patch.setattr(call, refuse)
                with pytest.raises(DataError, match=r"Permission denied"):
                    ask(config(tmp_path))


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no labels"):
        config(tmp_path).labels(Classes)
    for split in ("train", None):
        with pytest.raises(DataError, match="no images"):
            config(tmp_path).build(split, batch_size=1)


def test_broken_files_among_the_few_are_replaced_and_listed(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"train/cat/{number}.png")
    (tmp_path / "train/cat/1.png").write_text("not an image")
    loader = config(tmp_path, per_class=4, hold_out=0.0).build("train", batch_size=4, training=True)
    batch = next(iter(loader))
    assert batch.ids is not None
    assert 1 not in batch.ids.tolist()
    assert list(loader.broken) == [str(tmp_path / "train/cat/1.png")]
