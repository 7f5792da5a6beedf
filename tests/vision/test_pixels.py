"""Pixels as tensors: JPEG files by torchvision or Pillow, conversions, and random crops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from d2v.core.data import BrokenSampleError
from d2v.vision.pixels import image_of, jpeg_pixels, pixels_of
from d2v.vision.preparation import Preparation
from d2v.vision.reading import Channels, Reader


def photo(mode: str = "RGB") -> Image.Image:
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
    return smooth.resize((91, 67), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True, "quality": 30}, {"subsampling": 2}, {"subsampling": 0}])
def test_pixels_are_those_of_pillow(tmp_path: Path, mode: str, channels: Channels, options: dict[str, int]) -> None:
    photo(mode).save(tmp_path / "a.jpg", **options)
    with Image.open(tmp_path / "a.jpg") as image:
        quick = jpeg_pixels(image, channels)
        assert (quick is None) == (mode == "CMYK" or (mode, channels) == ("RGB", 1))
        expected = Reader(channels=channels).load(image)
    assert torch.equal(Reader(channels=channels).read(tmp_path / "a.jpg"), expected)
    if quick is not None:
        assert torch.equal(quick, expected)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_file_is_turned(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    photo().save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (jpeg_pixels(image, 3) is None) == (turn > 1)
        assert torch.equal(Reader().read(tmp_path / "a.jpg"), Reader().load(image))


@pytest.mark.parametrize("end", [0, 2, 30, 400, 900])
def test_what_pillow_thinks_of_a_cut_file_counts(tmp_path: Path, end: int) -> None:
    photo().save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) - end])
    try:
        with Image.open(tmp_path / "a.jpg") as image:
            expected = Reader().load(image)
    except OSError as error:
        with pytest.raises(BrokenSampleError, match=str(error)[:15]):
            Reader().read(tmp_path / "a.jpg")
    else:
        assert torch.equal(Reader().read(tmp_path / "a.jpg"), expected)


def test_without_the_decoder_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "a.jpg")
    expected = Reader().read(tmp_path / "a.jpg")
    monkeypatch.delattr("torchvision.io.decode_jpeg")
    assert torch.equal(Reader().read(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_there_and_back(mode: str) -> None:
    assert torch.equal(pixels_of(image_of(pixels_of(photo(mode)))), pixels_of(photo(mode)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_random_crops_are_drawn_as_torchvision_draws_them(mode: str) -> None:
    image, area, ratio = photo(mode), (0.2, 1.0), (3 / 4, 4 / 3)
    ours = Preparation.of(32, 32, crop=(area, ratio), flip=0.5, mean=(0.0,), std=(1 / 255,))
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(32, area, ratio, interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    different = []
    for seed in range(20):
        torch.manual_seed(seed)
        difference = (ours(pixels_of(image), seed) - theirs(image)).abs()
        different += [(difference > 0.5).float().mean().item()]
        assert difference.max() < 4
    assert np.mean(different) < 0.05
