"""Files of `torch.save`, of both kinds: the same numbers as PyTorch reads, and one line for what is broken."""

import io
import random
import re
from argparse import Namespace

import pytest
import torch

from d2v.core.foreign import ForeignFileError, StoredTensor, load_tensors, read_file, tensors_below

SHARED = torch.arange(6.0)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool)
CONTENTS = {
    "cfg": {"model": {"depth": 3}},
    "args": Namespace(lr=0.1),
    "model": {
        **{str(dtype): torch.tensor([[0, 1], [1, 0]]).to(dtype) for dtype in DTYPES},
        "view": SHARED[1:].view(5),
        "transposed": SHARED.view(2, 3).T,
        "tied": SHARED,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2.5),
        "_ema": {"tied": SHARED + 1},
    },
}


def saved(contents: object, *, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(contents, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


kinds = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])


@kinds
def test_numbers_and_values_are_those_that_were_saved(tmp_path, zipped):
    path = tmp_path / "file.pt"
    path.write_bytes(saved(CONTENTS, zipped=zipped))
    found = read_file(path)
    assert found["cfg"] == {"model": {"depth": 3}}
    assert found["args"] == {"lr": 0.1}
    stored = tensors_below(found["model"])
    expected = {**CONTENTS["model"], "_ema.tied": CONTENTS["model"]["_ema"]["tied"]}
    del expected["_ema"]
    assert stored.keys() == expected.keys()
    for name, tensor in load_tensors(path, stored).items():
        assert stored[name].shape == tuple(expected[name].shape)
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


@kinds
def test_tensors_of_one_storage_share_no_memory(tmp_path, zipped):
    path = tmp_path / "file.pt"
    path.write_bytes(saved(CONTENTS, zipped=zipped))
    found = load_tensors(path, tensors_below(read_file(path)["model"]))
    found["tied"][0] = 9
    assert found["transposed"][0, 0] == 0


def test_only_what_is_asked_for_is_read(tmp_path):
    path = tmp_path / "file.pt"
    content = saved({"model": {"a": torch.ones(50)}, "optimizer": {"b": torch.full((50,), 7.0)}}, zipped=True)
    path.write_bytes(content.replace(torch.full((50,), 7.0).numpy().tobytes(), b"\1" * 200))
    found = read_file(path)
    assert load_tensors(path, tensors_below(found["model"]))["a"].sum() == 50
    with pytest.raises(ForeignFileError, match="damaged"):
        load_tensors(path, tensors_below(found["optimizer"]))


def read_all(path) -> None:
    load_tensors(path, tensors_below(read_file(path)))


@kinds
def test_a_file_cut_anywhere_is_reported_in_one_line(tmp_path, zipped):
    content = saved({"model": CONTENTS["model"], "args": CONTENTS["args"]}, zipped=zipped)
    path = tmp_path / "file.pt"
    for length in range(0, len(content) - 1, 61):
        path.write_bytes(content[:length])
        with pytest.raises(ForeignFileError, match=re.escape(str(path))) as caught:
            read_all(path)
        assert "\n" not in str(caught.value)


@kinds
def test_a_damaged_file_is_read_or_reported_in_one_line(tmp_path, zipped):
    content, draw, path = saved({"model": CONTENTS["model"]}, zipped=zipped), random.Random(0), tmp_path / "file.pt"
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            read_all(path)
        except ValueError as error:
            refused += "\n" not in str(error)
    assert refused > 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"no pickle at all", "not a file"),
        (b"\x80\x02}q\x00.", "not of"),
        (b"PK\x03\x04 but no more", "cut off"),
        (saved([1, 2], zipped=True), "list"),
    ],
)
def test_other_files_are_reported(tmp_path, content, message):
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(ForeignFileError, match=message):
        read_file(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing.pt")


def test_objects_among_tensors_are_reported(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"model": {"a": torch.ones(1), "b": torch.ones(1).to_sparse()}}, path)
    with pytest.raises(ValueError, match=r"b is .*sparse_tensor"):
        tensors_below(read_file(path)["model"])


def test_what_lies_between_tensors_is_left_out():
    assert tensors_below({"step": 3, "name": "x", "nothing": None, "list": [1]}) == {}
    assert StoredTensor.__doc__
