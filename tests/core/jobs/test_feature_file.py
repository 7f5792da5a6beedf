"""A file of features has the bytes of one written at once, and is written without holding what is in it."""

import gc
import io
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from building import NEW, padding_of, toy_batch
from safetensors.torch import load_file, save
from torch import Tensor

from d2v.core.files import ConfigError
from d2v.core.jobs.feature_file import Shape, write_features
from d2v.core.model import Batch
from d2v.core.probes import Features, encode_layers
from d2v.core.probes.features import joined

DIM = 6


def part(
    n: int, t: int = 0, *, first: int = 0, labels: bool = False, lengths: list[int] | None = None, dim: int = DIM
) -> Features:
    """Features of n samples; of t tokens each, or one vector."""
    return Features(
        values={"chosen": {"read": torch.randn(n, t, dim) if t else torch.randn(n, dim)}},
        ids=torch.arange(first, first + n),
        labels=torch.arange(n) if labels else None,
        padding=None if lengths is None else padding_of(lengths, t),
        grid=(t,) if t else None,
    )


def write(out: Path, parts: list[Features] | Iterator[Features]) -> Shape:
    names, shape = write_features(out, iter(parts), layers="chosen", pooling="read", name="sample {}".format)
    assert names == out.with_suffix(".txt")
    return shape


def at_once(parts: list[Features], *, tokens: bool = False) -> dict[str, Tensor]:
    """What the file has to hold, by the way that holds all of it in memory."""
    if tokens:  # what is padded is called so where features are collected
        parts = [
            Features(**{**fields(one), "values": {"chosen": {"tokens": one.values["chosen"]["read"]}}}) for one in parts
        ]
    whole = joined(parts)
    found = {"features": whole.values["chosen"]["tokens" if tokens else "read"]}
    found |= {} if whole.labels is None else {"labels": whole.labels}
    return found | ({} if whole.padding is None else {"padding": whole.padding})


def fields(one: Features) -> dict[str, object]:
    return {name: getattr(one, name) for name in ("values", "ids", "labels", "padding", "grid")}


@pytest.mark.parametrize("labels", [False, True])
def test_the_bytes_are_those_of_a_file_written_at_once(tmp_path: Path, labels: bool) -> None:
    parts = [part(3, labels=labels), part(1, first=3, labels=labels), part(5, first=4, labels=labels)]
    assert write(tmp_path / "deep/f.safetensors", parts) == (9, DIM)
    assert write(tmp_path / "f.npy", parts) == (9, DIM)
    expected = at_once(parts)
    assert (tmp_path / "deep/f.safetensors").read_bytes() == save(expected)
    stream = io.BytesIO()
    np.save(stream, expected["features"].numpy())
    assert (tmp_path / "f.npy").read_bytes() == stream.getvalue()
    for folder in (tmp_path, tmp_path / "deep"):
        assert (folder / "f.txt").read_text() == "".join(f"sample {id}\n" for id in range(9))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "f.npy", "f.txt"]


@pytest.mark.parametrize("dim", [DIM, 150_000], ids=["small", "more than is copied at once"])
def test_tokens_are_padded_to_the_longest(tmp_path: Path, dim: int) -> None:
    shapes = [(2, 3, 0, None), (3, 5, 2, [5, 2, 4]), (1, 1, 5, None), (2, 5, 6, None)]
    parts = [part(n, t, first=first, lengths=lengths, dim=dim) for n, t, first, lengths in shapes]
    assert write(tmp_path / "f.safetensors", parts) == (8, 5, dim)
    assert (tmp_path / "f.safetensors").read_bytes() == save(at_once(parts, tokens=True))
    padding = load_file(tmp_path / "f.safetensors")["padding"]
    assert torch.equal(padding, padding_of([3, 3, 5, 2, 4, 1, 5, 5], 5))


def test_tokens_of_one_length_have_no_padding(tmp_path: Path) -> None:
    parts = [part(2, 4, labels=True), part(1, 4, first=2, labels=True, lengths=[4])]
    write(tmp_path / "f.safetensors", parts)
    assert sorted(load_file(tmp_path / "f.safetensors")) == ["features", "labels"]
    assert write(tmp_path / "f.npy", parts) == (3, 4, DIM)


@pytest.mark.parametrize("last", [part(1, 3), part(1, 2, lengths=[1])], ids=["longer", "padded"])
def test_a_plain_array_has_no_place_for_padding(tmp_path: Path, last: Features) -> None:
    with pytest.raises(ConfigError, match=r"\.safetensors"):
        write(tmp_path / "f.npy", [part(2, 2), last])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_put_together_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Features]:
        yield part(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "f.npy", broken())
    with pytest.raises(ValueError, match="no batches"):
        write(tmp_path / "f.npy", [])
    for labels in (False, True):
        with pytest.raises(ValueError, match="labels"):
            write(tmp_path / "f.npy", [part(2, labels=labels), part(2, labels=not labels)])
    square, wide = (Features(**{**fields(part(1, 4)), "grid": grid}) for grid in ((2, 2), (1, 4)))
    with pytest.raises(ValueError, match=r"\(1, 4\), \(2, 2\)"):
        write(tmp_path / "f.safetensors", [square, wide])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    write(out, [part(2)])
    before = out.read_bytes()
    with pytest.raises(ValueError, match="labels"):
        write(out, [part(2), part(2, labels=True)])
    assert out.read_bytes() == before
    write(out, [part(5)])
    assert np.load(out).shape == (5, DIM)


def test_a_part_is_let_go_before_the_one_after_the_next(tmp_path: Path) -> None:
    alive: list[weakref.ref[Tensor]] = []

    def batches() -> Iterator[Batch]:
        for _ in range(6):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 2
            yield toy_batch(2, 5)

    def watched(features: Iterator[Features]) -> Iterator[Features]:
        for one in features:
            alive.append(weakref.ref(one.values["chosen"]["tokens"]))
            yield one

    parts = encode_layers(NEW.build().student, batches(), poolings=["tokens"], layers={"chosen": "final"})
    write_features(tmp_path / "f.npy", watched(parts), layers="chosen", pooling="tokens", name=str)
    assert len(alive) == 6


MEASURED = """
import resource, sys
from pathlib import Path
import torch
from d2v.core.jobs.feature_file import write_features
from d2v.core.probes import Features

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def parts(n, lengths):
    for first in range(n):
        length = lengths[min(first, 1)]
        x = torch.zeros(2, length, 256)
        yield Features(values={"a": {"tokens": x}}, ids=torch.tensor([first, first]), grid=(length,))

def written(n, *lengths):
    write_features(Path(sys.argv[1]) / f"{n}.safetensors", parts(n, lengths), layers="a", pooling="tokens", name=str)
    return peak()

print(written(9, 64, 64), written(500, 64, 64), written(10, 512, 8), written(100, 512, 8))
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no getrusage")
def test_memory_grows_neither_with_the_samples_nor_with_the_longest(tmp_path: Path) -> None:
    """A file of 60 MiB, and one of 100 MiB that is almost all padding to one long sample."""
    done = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True)
    few, many, few_unequal, many_unequal = map(int, done.stdout.split())
    assert (tmp_path / "500.safetensors").stat().st_size > 60 * 2**20
    assert (tmp_path / "100.safetensors").stat().st_size > 100 * 2**20
    assert many - few < 8 * 2**20
    assert many_unequal - few_unequal < 8 * 2**20
