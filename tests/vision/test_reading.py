"""Files that are read, their conversion, and why others are not; a bad file affects nothing else."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision.transforms import v2

from d2v.core.data import BrokenSampleError, DataError
from d2v.vision import ImageDataConfig
from d2v.vision.data import ImageFolder
from d2v.vision.pixels import pixels_of
from d2v.vision.preparation import ResizedMiddle
from d2v.vision.reading import Reader

RANDOM = np.random.default_rng(0)


def config(path: Path | str, **options: object) -> ImageDataConfig:
    return ImageDataConfig(**{"path": str(path), "size": 8, "num_workers": 0, **options})  # type: ignore[arg-type]


def noise(size: int = 16) -> Image.Image:
    return Image.fromarray(RANDOM.integers(0, 256, (size, size, 3), dtype=np.uint8))


def deep_png(path: Path, values: np.ndarray) -> None:
    """A PNG of 16 bits from `h w` or `h w 3`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_what_pillow_reads_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    names = (
        "JPEG:a.jfif AVIF:b.avif JPEG2000:c.jp2 JPEG:d PNG:e.dat TGA:f.tga WEBP:g.jpg QOI:i.qoi TIFF:j.TIFF ICO:k.ico"
    )
    for number, (kind, name) in enumerate([one.split(":") for one in names.split()] + [["GIF", "h.v1.0 final"]]):
        noise(16 + number).save(tmp_path / name, kind)
    for name, text in [
        ("notes.txt", "P6 is a format"),
        ("odd", "GIF"),
        ("code.py", "#define x"),
        ("none", ""),
        ("e.ps", "%!PS"),
    ]:
        (tmp_path / name).write_text(text)
    data = config(tmp_path)
    loader = data.build(None, batch_size=4)
    assert sum(batch.size for batch in loader) == 11
    assert loader.broken == {}
    unused = data.contents().unused
    assert unused == {
        ".py files": ("code.py",),
        ".ps files": ("e.ps",),
        ".txt files": ("notes.txt",),
        "files of unknown type": ("none", "odd"),
    }


def test_known_endings_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.PNG", "c.avif"):
        (tmp_path / name).write_bytes(b"")

    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("opened")

    monkeypatch.setattr("builtins.open", refuse)
    assert dict(config(tmp_path).contents().splits) == {"train": 3}


@pytest.mark.parametrize(
    ("high", "max_value", "white"),
    [(65535, None, 65535), (40000, None, 65535), (4095, 4095, 4095), (3000, 4095, 4095), (900, 65535, 65535)],
)
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_by_a_stated_range(
    tmp_path: Path, high: int, max_value: float | None, white: int, ending: str
) -> None:
    values = RANDOM.integers(0, high, (6, 6)).astype(np.uint16)
    values[0, 0] = high
    if ending == "png":
        deep_png(tmp_path / "a.png", values)
    else:
        Image.fromarray(values).save(tmp_path / "a.tiff")
    found = Reader(channels=1, max_value=max_value).read(tmp_path / f"a.{ending}")[0].numpy()
    assert np.abs(found - values * (255 / white)).max() <= 0.5001


@pytest.mark.parametrize(
    ("values", "ending", "options", "word"),
    [
        (np.full((4, 4), 4095, np.uint16), "png", {}, "4095"),
        (np.full((4, 4), 16383, np.uint16), "tiff", {}, "16383"),
        (np.full((4, 4), 100000, np.int32), "tiff", {}, "100000"),
        (np.full((4, 4), -1, np.int32), "tiff", {"max_value": 255.0}, "-1"),
        (np.full((4, 4), 5000, np.uint16), "png", {"max_value": 4095.0}, "5000"),
        (np.full((4, 4), 0.5, np.float32), "tiff", {}, "0.5"),
        (np.full((4, 4), np.nan, np.float32), "tiff", {"max_value": 1.0}, "nan"),
        (np.full((4, 4, 3), 4095, np.uint16), "png", {}, "8 bits"),
    ],
)
def test_an_unknown_range_is_no_dark_picture(
    tmp_path: Path, values: np.ndarray, ending: str, options: dict[str, float], word: str
) -> None:
    path = tmp_path / f"a.{ending}"
    if values.dtype == np.uint16 and ending == "png":
        deep_png(path, values)
    else:
        Image.fromarray(values).save(path)
    with pytest.raises(BrokenSampleError, match=rf"{word}.*data\.max_value|data\.max_value.*{word}"):
        Reader(channels=1, **options).read(path)  # type: ignore[arg-type]


def test_ranges_that_a_file_states(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 4095\n" + np.array([4095, 819], ">u2").tobytes())
    deep_png(tmp_path / "b.png", np.full((4, 4, 3), 40000, np.uint16))
    deep_png(tmp_path / "c.png", np.zeros((4, 4), np.uint16))
    Image.fromarray(np.array([[0.25, 1.0]], np.float32)).save(tmp_path / "d.tiff")
    reader = Reader(channels=1, max_value=1.0)
    assert Reader(channels=1).read(tmp_path / "a.pgm").tolist() == [[[255, 51]]]
    assert Reader(channels=1).read(tmp_path / "b.png")[0, 0, 0] == 40000 >> 8
    assert Reader(channels=1).read(tmp_path / "c.png")[0, 0, 0] == 0
    assert reader.read(tmp_path / "d.tiff").tolist() == [[[64, 255]]]


def test_megapixels_are_limited_by_a_key(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    Image.new("L", (1000, 400)).save(tmp_path / "a.png")
    Image.new("1", (20000, 10000)).save(tmp_path / "b.png")  # more than Pillow's own limit
    for limit, size in ((0.3, "1000x400|0.4"), (199.0, "200 megapixels")):
        with pytest.raises(BrokenSampleError, match=rf"(?:{size}).*data\.max_megapixels={limit:g}"):
            Reader(max_megapixels=limit).read(tmp_path / ("a.png" if limit < 1 else "b.png"))
    assert Reader(channels=1, max_megapixels=200).read(tmp_path / "b.png").shape == (1, 10000, 20000)
    assert before == Image.MAX_IMAGE_PIXELS


def test_an_icon_is_limited_by_what_is_inside(tmp_path: Path) -> None:
    inside = tmp_path / "inside.png"
    Image.new("1", (3000, 3000)).save(inside)
    content = inside.read_bytes()
    head = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(content), 22)
    (tmp_path / "a.ico").write_bytes(head + content)
    with pytest.raises(BrokenSampleError, match=r"data\.max_megapixels=1"):
        Reader(max_megapixels=1).read(tmp_path / "a.ico")


@pytest.mark.parametrize("size", [(3000, 40), (40, 3000), (777, 13), (11, 1234), (90, 10), (80, 10)])
@pytest.mark.parametrize(("shorter", "side"), [(16, 16), (37, 32), (9, 8)])
def test_a_long_picture_is_cut_first_and_is_the_same(size: tuple[int, int], shorter: int, side: int) -> None:
    # No contrast that overshoots white or black: Pillow cuts that off between rows and columns, in an order of its own.
    image = Image.fromarray(RANDOM.integers(80, 176, (size[1], size[0]), dtype=np.uint8))
    whole = v2.Compose([v2.Resize(shorter, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(side)])
    found = ResizedMiddle(shorter, side)(pixels_of(image))
    assert (found.int() - pixels_of(whole(image)).int()).abs().max() <= 1


def test_a_strip_takes_no_memory(tmp_path: Path) -> None:
    Image.new("L", (3_000_000, 2), 9).save(tmp_path / "line.png")
    for options in ({}, {"crop_area": None}):
        batch = next(iter(config(tmp_path, **options).build("train", batch_size=1, training=True)))
        assert batch.source.std() < 1


def bad_files(folder: Path) -> set[str]:
    """A file of every bad kind; gives their names."""
    noise().save(folder / "whole.png")
    whole = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("hello")
    (folder / "vanished.png").symlink_to("whole.png")
    texts = PngImagePlugin.PngInfo()
    texts.add_text("a", "x" * 5_000_000, zip=True)
    noise().save(folder / "texts.png", pnginfo=texts)
    Image.new("1", (15000, 15000)).save(folder / "bomb.png")
    return {
        "cut.png",
        "empty.png",
        "text.jpg",
        "bomb.png",
        "texts.png",
        "odd.png",
        "memory.png",
        "shut.png",
        "gone.png",
    }


def test_one_bad_file_never_ends_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = bad_files(tmp_path)
    for name in ("odd.png", "memory.png", "shut.png", "gone.png"):
        noise().save(tmp_path / name)
    loader = config(tmp_path).build(None, batch_size=16)
    (tmp_path / "gone.png").unlink()
    opened = Image.open

    def odd(path: object, *args: object, **options: object) -> object:
        name = Path(str(path)).name
        errors = {
            "odd.png": StopIteration(),
            "memory.png": MemoryError(),
            "shut.png": PermissionError(13, "Permission denied"),
        }
        if name in errors:
            raise errors[name]
        return opened(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", odd)
    (batch,) = loader
    assert {Path(name).name for name in loader.broken} == names
    assert batch.size == 1
    assert all("\n" not in reason and reason for reason in loader.broken.values())


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x.png")  # type: ignore[operator]
    with pytest.raises(BrokenSampleError, match=r"pipe|folder"):
        Reader().read(tmp_path / "x.png")


def test_the_public_folder_has_the_same_rules(tmp_path: Path) -> None:
    for name in ("a/0.png", "b/0.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise().save(tmp_path / name)
    assert ImageFolder(tmp_path).paths == ["a/0.png", "b/0.png"]
    assert ImageFolder(tmp_path, labelled=False).paths == ["a/0.png", "b/0.png", "c.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        ImageFolder(tmp_path / "empty")


def test_a_picture_in_memory_follows_the_same_rule() -> None:
    twelve_bits = Image.fromarray(np.full((8, 8), 4095, np.uint16))
    with pytest.raises(DataError, match=r"item 0.*data\.max_value"):
        config("digits").prepare([twelve_bits])
    batch = config("digits", channels=1, max_value=4095).prepare([twelve_bits])
    assert torch.allclose(batch.source, torch.tensor((1 - 0.449) / 0.226))
