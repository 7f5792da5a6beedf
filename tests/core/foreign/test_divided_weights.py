"""Weights in several files with an index, which may be damaged or written by anyone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from d2v.core.foreign import ForeignFileError, load_tensors
from d2v.core.foreign.sources import read_weights

NAMES = {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files whose tensors have the same positions in them."""
    save_file({"a": torch.full((3,), 1.0)}, tmp_path / "one.safetensors")
    save_file({"b": torch.full((3,), 2.0), "c": torch.full((3,), 3.0)}, tmp_path / "two.safetensors")
    write_index(tmp_path, NAMES)
    return tmp_path


def write_index(folder: Path, names: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def test_every_tensor_is_from_its_file(folder: Path) -> None:
    source, tensors = read_weights(folder)
    assert source.name == "model.safetensors.index.json"
    assert {name: tensor.tolist() for name, tensor in load_tensors(source, tensors).items()} == {
        "a": [1.0] * 3,
        "b": [2.0] * 3,
        "c": [3.0] * 3,
    }


def test_one_file_goes_before_an_index(folder: Path) -> None:
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors")
    source, tensors = read_weights(folder)
    assert (source.name, list(tensors)) == ("model.safetensors", ["a"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES | {"d": "three.safetensors"}, "three.safetensors is missing"),
        (NAMES | {"d": "one.safetensors"}, "d is not in one.safetensors"),
        (NAMES | {"d": "../other/one.safetensors"}, "not a file of the same folder"),
        (NAMES | {"d": "/etc/passwd"}, "not a file of the same folder"),
        (NAMES | {"d": "below/one.safetensors"}, "not a file of the same folder"),
        (NAMES | {"d": ".."}, "not a file of the same folder"),
        (NAMES | {"d": "a\0b"}, "not a file of the same folder"),
        (NAMES | {"d": 3}, "weight_map"),
        ([], "weight_map"),
    ],
)
def test_what_the_index_may_not_name(folder: Path, names: Any, message: str) -> None:
    write_index(folder, names)
    (folder.parent / "other").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="safetensors") as caught:
        read_weights(folder)
    assert message in str(caught.value)


def test_the_broken_one_of_several_files_is_named(folder: Path) -> None:
    path = folder / "two.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ForeignFileError, match=r"two\.safetensors: it is cut off"):
        read_weights(folder)


def test_a_file_that_shrinks_after_its_header_was_read_is_named(folder: Path) -> None:
    source, tensors = read_weights(folder)
    path = folder / "two.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ForeignFileError, match=r"two\.safetensors: it is cut off"):
        load_tensors(source, tensors)
