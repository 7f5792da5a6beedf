"""Features of samples as a file, written piece by piece, so that memory does not grow with the number of samples.

Shapes are known only at the end: broken samples are left out, a stream has no length, and sequences are padded to the
longest. Pieces are therefore collected in unnamed temporary files in the same folder, and copied after the header.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from d2v.core.files import ConfigError
from d2v.core.files.atomic import replacing
from d2v.core.probes import Features
from d2v.core.probes.features import longest_grid

_CHUNK = 1 << 20  # bytes to copy at a time
# Name to the type in a safetensors file and the bytes of a value, in the order of the format: wide types first, so that
# all are aligned.
_TENSORS = {"labels": ("I64", 8), "features": ("F32", 4), "padding": ("BOOL", 1)}
Shape = tuple[int, ...]


def write_features(
    out: Path, parts: Iterable[Features], *, layers: str, pooling: str, name: Callable[[int], str]
) -> tuple[Path, Shape]:
    """Write features to a file, and the names of their samples to a .txt of the same name.

    A `.safetensors` file holds `features`, `labels` if there are any, and `padding` if tokens are padded; a `.npy` file
    only the features. The bytes are those of `safetensors.torch.save` and `numpy.save`. Both files are written whole or
    not at all.

    Args:
        out: ends in .safetensors or .npy.
        parts: features of any number of samples each; taken one by one and not kept.
        layers: key of the chosen layers in each part.
        pooling: key of the chosen pooling in each part.
        name: gives the name of a sample by its id.

    Returns:
        The file of names, and the shape of the features: `n d`, `n (4 d)` or `n t d` with the longest t.

    Raises:
        ConfigError: if tokens are padded, which `.npy` cannot store.
        ValueError: if there are no parts, some have labels and others not, or patches of different 2-d grids would be
            combined.
        OSError: if a file cannot be written.
    """
    names = out.with_suffix(".txt")
    with replacing(names) as name_lines, _nameless(out.parent) as files:
        collected = _Collected(files, may_be_padded=out.suffix != ".npy")
        for part in parts:
            collected.add(part, part.values[layers][pooling])
            name_lines.write("".join(f"{name(id)}\n" for id in part.ids.tolist()).encode())
        shapes = collected.shapes()
        with replacing(out) as stream:
            if out.suffix == ".npy":
                _write_npy_header(stream, shapes["features"])
                collected.copy("features", stream)
            else:
                _write_safetensors_header(stream, shapes)
                for tensor in shapes:
                    collected.copy(tensor, stream)
    return names, shapes["features"]


@contextmanager
def _nameless(folder: Path) -> Iterator[dict[str, BinaryIO]]:
    """Empty unnamed files on the disk of a folder; they are removed even after an error."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(TemporaryFile(dir=folder)) for name in (*_TENSORS, "lengths")}


class _Collected:
    """Tensors of samples, on disk until their shapes are known.

    Args:
        files: one for each of `_TENSORS`, and "lengths".
        may_be_padded: whether tokens may be padded.
    """

    def __init__(self, files: Mapping[str, BinaryIO], *, may_be_padded: bool) -> None:
        self.may_be_padded = may_be_padded
        self._files = files
        self._count, self._width = 0, 0
        self._labelled = self._padded = False
        self._grid: Shape = ()  # the longest one of tokens

    def add(self, part: Features, x: Tensor) -> None:
        """Append features `n d` or `n t d` and the labels and padding of their samples."""
        labelled = part.labels is not None
        if self._count and labelled != self._labelled:
            raise ValueError(
                f"only some of the batches have labels (change after sample {self._count}): all or none must have them"
            )
        self._labelled = labelled
        if part.labels is not None:
            self._append("labels", part.labels)
        if part.grid is not None:
            self._add_lengths(part, x)
        self._append("features", x)
        self._count += len(x)
        self._width = x.shape[-1]

    def _add_lengths(self, part: Features, x: Tensor) -> None:
        grids = {part.grid or (), self._grid or part.grid or ()}
        self._grid = longest_grid(grids)
        padding = torch.zeros(x.shape[:2], dtype=torch.bool) if part.padding is None else part.padding
        self._padded |= len(grids) > 1 or bool(padding.any())
        if self._padded and not self.may_be_padded:
            raise ConfigError("out: tokens of unequal lengths need their padding, which .npy lacks; use .safetensors")
        self._append("padding", padding)
        self._append("lengths", torch.tensor(x.shape[:2]))

    def _append(self, name: str, x: Tensor) -> None:
        self._files[name].write(x.contiguous().numpy().data)

    def shapes(self) -> dict[str, Shape]:
        """Shapes of the tensors that exist, in the order of `_TENSORS`; raises `ValueError` if there are no samples."""
        if not self._count:
            raise ValueError("there are no batches to extract features from")
        samples = (self._count, torch.Size(self._grid).numel()) if self._grid else (self._count,)
        found = {"labels": (self._count,), "features": (*samples, self._width), "padding": samples}
        there = {"labels": self._labelled, "features": True, "padding": self._padded}
        return {name: shape for name, shape in found.items() if there[name]}

    def copy(self, name: str, target: BinaryIO) -> None:
        """Write a tensor; tokens are padded to the longest, with 0 or, in the padding, True."""
        source = self._files[name]
        source.seek(0)
        if name == "labels" or not self._padded:
            _copy(source, target)
            return
        size = 1 if name == "padding" else 4 * self._width
        longest = torch.Size(self._grid).numel()
        for count, length in self._lengths():
            rows, own = (1, count * length) if length == longest else (count, length)
            for _ in range(rows):
                _copy(source, target, own * size)
                _fill(target, b"\1" if name == "padding" else b"\0", (longest - length) * size)

    def _lengths(self) -> Iterator[tuple[int, int]]:
        """Number of samples and their length, for each part."""
        file = self._files["lengths"]
        file.seek(0)
        while pair := file.read(16):
            count, length = np.frombuffer(pair, dtype=np.int64).tolist()
            yield count, length


def _write_npy_header(target: BinaryIO, shape: Shape) -> None:
    form = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, form)


def _write_safetensors_header(target: BinaryIO, shapes: Mapping[str, Shape]) -> None:
    header, start = {}, 0
    for name, shape in shapes.items():
        dtype, size = _TENSORS[name]
        stop = start + size * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write(len(text).to_bytes(8, "little") + text)


def _copy(source: BinaryIO, target: BinaryIO, size: int | None = None) -> None:
    """Copy `size` bytes; None = the rest of the file."""
    left = size
    while chunk := source.read(_CHUNK if left is None else min(_CHUNK, left)):
        target.write(chunk)
        left = None if left is None else left - len(chunk)


def _fill(target: BinaryIO, byte: bytes, count: int) -> None:
    for start in range(0, count, _CHUNK):
        target.write(byte * min(_CHUNK, count - start))
