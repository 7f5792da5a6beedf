"""Tensors in a file: known by shape, read on request."""

import math
import zlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

_MOST_AXES = 16

DTYPES: dict[str, torch.dtype] = {
    **{f"torch.{name}": getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64", "bool")},
    **{f"torch.{name}": getattr(torch, name) for name in ("uint8", "int8", "int16", "int32", "int64")},
    **{f"torch.{short}": getattr(torch, short) for short in ("half", "float", "double", "short", "int", "long")},
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.UntypedStorage": torch.uint8,
    "torch.storage.UntypedStorage": torch.uint8,
}


@frozen
class Extent:
    """Position of bytes in a file.

    Args:
        start: position of the first byte.
        size: number of bytes.
        checksum: their CRC-32, or None.
        file: the file, where a model is in several; None = the only one.
    """

    start: int
    size: int
    checksum: int | None = None
    file: Path | None = None

    def read(self, stream: BufferedReader) -> Tensor:
        """Read the bytes, UInt8, without checking them.

        Raises:
            ValueError: if bytes are missing.
        """
        content = torch.empty(self.size, dtype=torch.uint8)
        stream.seek(self.start)
        if stream.readinto(content.numpy().data) != self.size:
            raise ValueError("it is cut off: the values of a tensor are missing")
        return content

    def check(self, content: Tensor) -> None:
        """Compare the checksum of the bytes.

        Raises:
            ValueError: if it differs.
        """
        if self.checksum is not None and zlib.crc32(content.numpy().data) != self.checksum:
            raise ValueError("it is damaged: the checksum of a tensor differs")


@frozen
class Storage:
    """Values of one type that tensors are views of.

    Raises:
        ValueError: if it claims more values than there are bytes.
    """

    extent: Extent
    dtype: torch.dtype
    count: int

    def __attrs_post_init__(self) -> None:
        if not _is_size(self.count) or self.count * self.dtype.itemsize > self.extent.size:
            raise ValueError(f"a storage claims {self.count} values and has {self.extent.size} bytes")


@frozen
class StoredTensor:
    """A tensor in a file.

    Raises:
        ValueError: if shape and strides reach beyond the storage, or claim more values than it has.

    >>> storage = Storage(Extent(start=0, size=24), torch.float32, 6)
    >>> StoredTensor(storage, torch.float32, offset=0, shape=(2, 3), stride=(3, 1)).shape
    (2, 3)
    >>> StoredTensor(storage, torch.float32, offset=0, shape=(1000000000000,), stride=(0,))
    Traceback (most recent call last):
    ValueError: a tensor of shape (1000000000000,) does not fit its storage of 6 values
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def within(self, file: Path) -> "StoredTensor":
        """The same tensor with the name of its file, for a model in several files."""
        return evolve(self, storage=evolve(self.storage, extent=evolve(self.storage.extent, file=file)))

    def __attrs_post_init__(self) -> None:
        held = self.storage.count * self.storage.dtype.itemsize // self.dtype.itemsize
        sizes = [self.offset, *self.shape, *self.stride]
        if len(self.shape) != len(self.stride) or len(self.shape) > _MOST_AXES or not all(map(_is_size, sizes)):
            raise ValueError("the shape of a tensor is invalid")
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        count = math.prod(self.shape)
        if count > held or (count and last >= held):
            raise ValueError(f"a tensor of shape {self.shape} does not fit its storage of {held} values")


def tensors_below(values: Mapping[Any, Any], prefix: str = "") -> dict[str, StoredTensor]:
    """All tensors in nested mappings, by dotted names; numbers, texts, lists and None are ignored.

    Raises:
        ValueError: if there is another object, which may be a tensor that cannot be read.

    >>> storage = Storage(Extent(start=0, size=4), torch.float32, 1)
    >>> tensor = StoredTensor(storage, torch.float32, offset=0, shape=(), stride=())
    >>> list(tensors_below({"norm.weight": tensor, "_ema": {"norm.weight": tensor}, "epoch": 3}))
    ['norm.weight', '_ema.norm.weight']
    """
    found: dict[str, StoredTensor] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, StoredTensor):
            found[name] = value
        elif isinstance(value, Mapping):
            found |= tensors_below(value, f"{name}.")
        elif not isinstance(value, str | int | float | bytes | list | tuple | None):
            raise ValueError(f"{name} is a {value!r}, not a tensor")
    return found


def read_tensors(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Read tensors of a file to the CPU; no two share memory.

    Args:
        path: of the file.
        tensors: by name; only these are read.

    Raises:
        ValueError: if the file is cut off or damaged.
        OSError: if it cannot be read.
    """
    uses = Counter(tensor.storage.extent for tensor in tensors.values())
    found: dict[str, Tensor] = {}
    # A checksum takes as long as reading from a fast disk, so another thread computes it.
    with path.open("rb") as stream, ThreadPoolExecutor(1) as checking:
        contents, checks = dict[Extent, Tensor](), list[Future[None]]()
        for name, tensor in tensors.items():
            extent = tensor.storage.extent
            if extent not in contents:
                contents[extent] = extent.read(stream)
                checks.append(checking.submit(extent.check, contents[extent]))
            size = tensor.dtype.itemsize
            whole = contents[extent][: extent.size // size * size].view(tensor.dtype)
            one = whole.as_strided(tensor.shape, tensor.stride, tensor.offset)
            found[name] = one if uses[extent] == 1 else one.clone()
        for check in checks:
            check.result()
    return found


def _is_size(number: Any) -> bool:
    return type(number) is int and number >= 0
