"""Files of safetensors: a header in JSON with names, types, shapes and positions, then the values of the tensors."""

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import torch

from d2v.core.foreign.stored import Extent, Storage, StoredTensor

LONGEST_JSON = 1 << 25
"""Limit of a JSON file or header in bytes; the largest known one, a vocabulary, has 1 MB."""

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LENGTH = struct.Struct("<Q")


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Tensors of a safetensors file by name; their values are not read yet.

    Raises:
        ValueError: if the header is broken, or a tensor does not fit the bytes that it names.
        OSError: if the file cannot be read.
    """
    with path.open("rb") as stream:
        size, start = os.fstat(stream.fileno()).st_size, stream.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
        if length > min(LONGEST_JSON, size - _LENGTH.size):
            raise ValueError("it is cut off, or not a file of safetensors: its header is longer than the file")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a mapping of names")
    values = _LENGTH.size + length
    found = {name: _tensor(name, one, values, size) for name, one in header.items() if name != "__metadata__"}
    end = values
    for extent in sorted((tensor.storage.extent for tensor in found.values()), key=lambda extent: extent.start):
        if extent.start < end:
            raise ValueError("two of its tensors share their bytes")
        end = extent.start + extent.size
    return found


def _tensor(name: str, described: Any, values: int, size: int) -> StoredTensor:
    kind, shape, (begin, end) = described["dtype"], tuple(described["shape"]), described["data_offsets"]
    if kind not in _TYPES:
        raise ValueError(f"{name} has an unsupported type: {kind}")
    numbers = (*shape, begin, end)
    if not all(type(number) is int and number >= 0 for number in numbers) or not begin <= end <= size - values:
        raise ValueError(f"it is cut off or damaged: the values of {name} are missing")
    dtype, count = _TYPES[kind], math.prod(shape)
    if count * dtype.itemsize != end - begin:
        raise ValueError(f"{name} of shape {shape} does not fit its {end - begin} bytes")
    stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return StoredTensor(Storage(Extent(values + begin, end - begin), dtype, count), dtype, 0, shape, stride)
