"""Images that a user passes give the same bits as the same images in a folder."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d2v.core.data import DataError
from d2v.vision.data import ImageDataConfig


def noise_image(seed: int = 0, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode)


def config(**options: object) -> ImageDataConfig:
    return ImageDataConfig(**{"path": "-", "size": 16, "num_workers": 0, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_gives_the_bits_of_a_file_in_a_folder(tmp_path: Path, channels: int) -> None:
    files = []
    for number, mode in enumerate(["RGB", "L", "RGBA"]):
        files.append(tmp_path / f"{number}.png")
        noise_image(number, mode).save(files[-1])
    (batch,) = config(path=str(tmp_path), channels=channels).build(None, batch_size=3)
    data = config(channels=channels, crop_area=(0.2, 0.3), flip=1.0)
    opened = [Image.open(io.BytesIO(file.read_bytes())) for file in files]
    arrays = [np.asarray(image) for image in opened]
    tensors = [
        torch.from_numpy(a.copy()) if a.ndim == 2 else torch.from_numpy(a.copy()).permute(2, 0, 1) for a in arrays
    ]
    for items in (files, map(str, files), opened, arrays, tensors, [files[0], arrays[1], tensors[2]]):
        prepared = data.prepare(items)
        assert torch.equal(prepared.source, batch.source)
        assert prepared.labels is None


def test_one_channel_may_have_an_axis() -> None:
    grey = np.asarray(noise_image(mode="L"))
    data = config(channels=1)
    plain, trailing, leading = grey, grey[:, :, None], torch.from_numpy(grey.copy())[None]
    expected = data.prepare([plain]).source
    for item in (trailing, leading):
        assert torch.equal(data.prepare([item]).source, expected)


def test_rotation_of_cameras_is_applied() -> None:
    turned = noise_image()
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.info["exif"] = exif.tobytes()
    upright = config().prepare([noise_image().rotate(180)]).source
    assert torch.equal(config().prepare([turned]).source, upright)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("nowhere.png", "item 1, 'nowhere.png': No such file"),
        (Path("nowhere.png"), "item 1, 'nowhere.png': No such file"),
        (np.zeros((4, 4)), "item 1, .*float64"),
        (np.zeros((4, 4, 2), dtype=np.uint8), r"item 1, .*\(4, 4, 2\)"),
        (np.zeros((0, 4), dtype=np.uint8), r"item 1, .*\(0, 4\)"),
        (torch.zeros(5, 5, 3, dtype=torch.uint8), r"item 1, .*\(5, 5, 3\).*c h w"),
        (torch.zeros(3, 4, 4), r"item 1, .*torch\.float32"),
        (Image.new("F", (4, 4)), "item 1, .*mode F"),
        (7, "item 1, a int"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_image_is_named(item: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        config().prepare([noise_image(), item])


def test_broken_files_are_named(tmp_path: Path) -> None:
    noise_image().save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[:-100])
    (tmp_path / "text.png").write_text("hello")
    with Image.open(tmp_path / "cut.jpg") as lazy:
        for item, message in (
            (tmp_path / "text.png", "item 0, .*text.png': not an image"),
            (tmp_path / "cut.jpg", "item 0, .*cut.jpg': .*truncated"),
            (lazy, "item 0, a Jpeg.*truncated"),
        ):
            with pytest.raises(DataError, match=message):
                config().prepare([item])


@pytest.mark.parametrize("items", ["a.png", Path("a.png"), np.zeros((4, 4, 3), dtype=np.uint8), noise_image(), 7])
def test_one_item_is_no_list(items: object) -> None:
    with pytest.raises(DataError, match="list"):
        config().prepare(items)  # type: ignore[arg-type]


def test_no_items() -> None:
    with pytest.raises(DataError, match="empty"):
        config().prepare([])
