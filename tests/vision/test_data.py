"""Image folders with real files of all kinds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from d2v.core.data import DataError, Loader
from d2v.core.labels import Classes
from d2v.core.modality import Modality
from d2v.core.registry import MissingExtraError
from d2v.vision.data import ImageDataConfig, ImageFolder
from d2v.vision.pixels import pixels_of

KINDS = ["rgb.jpg", "grey.png", "cmyk.jpg", "deep.png", "palette.gif", "alpha.png", "rgb.webp", "rgb.bmp", "rgb.tiff"]


def noise_image(seed: int = 0, size: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    modes = {"grey": "L", "cmyk": "CMYK", "palette": "P", "alpha": "RGBA"}
    image = noise_image(seed).convert(modes.get(path.stem, "RGB"))
    if path.stem == "deep":
        image = Image.fromarray(np.asarray(noise_image(seed).convert("L")).astype(np.uint16) * 257)
    image.save(path)


def config(path: Path | str, **options: object) -> ImageDataConfig:
    # All of a folder is the split `train`: what is held out is test_held_out's.
    return ImageDataConfig(**{"path": str(path), "size": 16, "num_workers": 0, "hold_out": 0.0, **options})  # type: ignore[arg-type]


def take(loader: Loader[object], count: int) -> list[torch.Tensor]:
    return [batch.source for batch, _ in zip(loader, range(count), strict=False)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "resize"), [(24, 24), (16, 16), (16, 24), (16, None)])
def test_the_short_way_gives_the_bits_of_torchvision(
    tmp_path: Path, channels: int, size: int, resize: int | None
) -> None:
    """Images of 24 pixels; those that need no resizing do not pass through torchvision."""
    save(tmp_path / "one.png")
    (found,) = take(config(tmp_path, size=size, resize=resize, channels=channels).build(None, batch_size=1), 1)
    mean, std = {1: ([0.449], [0.226]), 3: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}[channels]
    steps = [
        v2.Resize(round(size * 256 / 224) if resize is None else resize, interpolation=v2.InterpolationMode.BICUBIC),
        v2.CenterCrop(size),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean, std),
    ]
    whole = Image.open(tmp_path / "one.png").convert("L" if channels == 1 else "RGB")
    assert torch.equal(found[0], v2.Compose(steps)(whole))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path: Path, kind: str, channels: int) -> None:
    save(tmp_path / "a" / "b" / kind)
    loader = config(tmp_path, channels=channels).build("train", batch_size=1)
    (batch,) = loader
    assert batch.source.shape == (1, channels, 16, 16)
    assert batch.source.dtype == torch.float32
    assert loader.broken == {}


def test_sixteen_bits_transparency_and_rotation(tmp_path: Path) -> None:
    save(tmp_path / "deep.png")
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    folder = ImageFolder(tmp_path, channels=1)
    assert folder.paths == ["clear.png", "deep.png", "turned.jpg"]
    clear, deep, turned = (folder[i][0] for i in range(3))
    assert clear[0, 0, 0] == 255
    assert torch.equal(deep, pixels_of(noise_image().convert("L")))
    assert turned.shape == (1, 8, 4)


def test_classes_are_sorted_and_a_flat_folder_has_none(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/x/2.png", "dog/0.png"):
        save(tmp_path / "train" / name)
    (batch,) = config(tmp_path).build("train", batch_size=4)
    assert batch.labels.tolist() == [0, 1, 1]
    for name in ("0.png", "1.png", "x/2.png"):
        save(tmp_path / "flat" / name)
    (batch,) = config(tmp_path / "flat").build("train", batch_size=4)
    assert batch.labels is None


def test_augmentation_is_a_function_of_seed_epoch_and_id(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.png", i)
    through = take(config(tmp_path).build("train", batch_size=2, seed=1, training=True), 6)
    resumed = config(tmp_path, num_workers=2).build("train", batch_size=2, seed=1, training=True)
    resumed.load_state_dict({"epoch": 1, "batch": 1})
    assert all(torch.equal(a, b) for a, b in zip(through[3:], take(resumed, 3), strict=True))
    other = config(tmp_path).build("train", batch_size=2, seed=2, training=True)
    assert not torch.equal(through[0], take(other, 1)[0])
    assert len({image.numpy().tobytes() for batch in through for image in batch}) == 12


def test_truncated_and_other_files_are_listed(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    save(tmp_path / "short.jpg")
    content = (tmp_path / "short.jpg").read_bytes()
    (tmp_path / "short.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "notes.txt").write_text("not looked at")
    loader = config(tmp_path).build("train", batch_size=4)
    assert [batch.size for batch in loader] == [1]
    assert loader.broken[str(tmp_path / "text.png")] == "not an image"
    assert "truncated" in loader.broken[str(tmp_path / "short.jpg")].lower()
    assert loader.report().startswith("2 of 3 ")


def test_bad_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no images"):
        config(tmp_path).build("train", batch_size=1)
    with pytest.raises(DataError, match=r"'fashion-mnits' .*'fashion-mnist'"):
        config("fashion-mnits").build("train", batch_size=1)
    save(tmp_path / "train/cat/1.png")
    save(tmp_path / "val/cot/1.png")
    with pytest.raises(DataError, match=r"val: cot; .*train: cat"):
        config(tmp_path).build("val", batch_size=1)
    with pytest.raises(DataError, match=r"'vla'.*train, val.*'val'"):
        config(tmp_path).build("vla", batch_size=1)
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        config(tmp_path).build("train", batch_size=1)


def refuse(path: object, *_: object, **__: object) -> object:
    raise PermissionError(13, "Permission denied", str(path))


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Modality(name="vision", description="", extra="d2v[vision]", requires=("no_such_package",))
    monkeypatch.setattr("d2v.vision.modality", record)
    with pytest.raises(MissingExtraError, match=r"d2v\[vision\]"):
        config("digits").build("train", batch_size=1)


@pytest.mark.parametrize(("name", "split"), [("fashion-mnist", "test"), ("digits", "test")])
def test_built_in_sets(name: str, split: str) -> None:
    loader = config(name, size=28, resize=28, channels=1, crop_area=None).build(split, batch_size=8)
    batch = next(iter(loader))
    assert batch.source.shape == (8, 1, 28, 28)
    assert loader.name(17) == f"{name}/{split}/17"
    assert config(name).labels(Classes).num_outputs == 10
    with pytest.raises(DataError, match=r"'valid'.*train, (val, )?test"):
        config(name).build("valid", batch_size=1)


def test_the_name_of_a_split_decides_nothing(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "train" / f"{i}.png", i)
    batches = list(config(tmp_path, crop_area=(0.1, 0.2)).build("train", batch_size=2))
    assert [batch.ids.tolist() for batch in batches if batch.ids is not None] == [[0, 1], [2]]
