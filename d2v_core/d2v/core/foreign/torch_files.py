"""Files of `torch.save`, read without running code: zip archives, and the stream format before PyTorch 1.6."""

import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2v.core.foreign.plain import to_values
from d2v.core.foreign.stand_ins import Name, Persistent
from d2v.core.foreign.stored import DTYPES, Extent, Storage, StoredTensor, read_tensors
from d2v.core.foreign.unpickling import unpickle

_LONGEST_PICKLE = 1 << 27  # the largest known one, with a dictionary of 50,000 symbols, is 2 MB
_LONGEST_LINE = 600
_MAGIC, _STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001
_ZIP, _MEMBER = b"PK\x03\x04", struct.Struct("<4s22xHH")  # header of a member: lengths of its name and extra field


class ForeignFileError(ValueError):
    """A third-party file cannot be read; the message is one line that names it."""

    def __init__(self, path: str | os.PathLike[str], reason: object) -> None:
        # The reason may contain text of the file, which may be long or contain line breaks.
        line = " ".join("".join(c if c.isprintable() else " " for c in str(reason)).split())
        super().__init__(f"{path}: {line[:_LONGEST_LINE]}{'...' if len(line) > _LONGEST_LINE else ''}")


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Contents of a `torch.save` file: plain values, and tensors as `StoredTensor`, which are not read yet.

    No code in the file is run and nothing that it names is imported. Sizes are compared with the file's size before
    memory is allocated. `to_values` describes the conversion of objects.

    Args:
        path: of a `.pt` or `.pth` file.

    Raises:
        ForeignFileError: if it is not such a file, is cut off, damaged or malicious, or contains no mapping.
        OSError: if it cannot be read.
    """
    path = Path(path)
    with naming_file(path), path.open("rb") as stream:
        start = stream.read(4)
        if not start:
            raise ValueError("it is empty")
        found = _read_archive(stream) if start == _ZIP else _read_stream(stream)
    if not isinstance(found, dict):
        raise ForeignFileError(path, f"it contains a {type(found).__name__}, not a mapping of names")
    return found


def load_tensors(path: str | os.PathLike[str], tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Read tensors of a file whose contents come from `read_file`, or of the files that they name.

    Raises:
        ForeignFileError: if they are cut off or damaged.
        OSError: if a file cannot be read.
    """
    files: dict[Path, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        files.setdefault(tensor.storage.extent.file or Path(path), {})[name] = tensor
    found: dict[str, Tensor] = {}
    for file, some in files.items():
        with naming_file(file):
            found |= read_tensors(file, some)
    return found


@contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Report any error inside the block as one line that names the file."""
    try:
        yield
    except (ForeignFileError, OSError):
        raise
    except Exception as error:  # the file determines what can go wrong, so any error is possible
        reason = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ForeignFileError(path, reason) from error


def _read_archive(stream: BufferedReader) -> Any:
    try:
        archive = zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
        raise ValueError("it is cut off or damaged: the table at the end of the archive is missing") from error
    with archive:
        extents = _extents(archive, stream)
    pickles = [name for name in extents if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it is a zip archive, but not of torch.save")
    folder = pickles[0].removesuffix("data.pkl")
    order = extents.get(f"{folder}byteorder")
    if order is not None and _content(stream, order) != b"little":
        raise ValueError("its values are big-endian, which is not supported")

    def storage(id: Any) -> Storage:
        key, dtype, count = _facts(id)
        extent = extents.get(f"{folder}data/{key}")
        if extent is None:
            raise ValueError(f"the values of storage {key} are missing")
        return Storage(extent, dtype, count)

    return to_values(unpickle(BytesIO(_content(stream, extents[pickles[0]]))), storage)


def _extents(archive: zipfile.ZipFile, stream: BufferedReader) -> dict[str, Extent]:
    """Positions of the members of an archive; no two share bytes, so their total size is at most that of the file."""
    found: dict[str, Extent] = {}
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise ValueError(f"the member {info.filename} is compressed, which torch.save never does")
        stream.seek(max(0, info.header_offset))
        header = stream.read(_MEMBER.size)
        if len(header) < _MEMBER.size or header[:4] != _ZIP or info.header_offset < 0 or info.filename in found:
            raise ValueError(f"the member {info.filename} is damaged")
        _, name, extra = _MEMBER.unpack(header)
        found[info.filename] = Extent(info.header_offset + len(header) + name + extra, info.file_size, info.CRC)
    end = 0
    for extent in sorted(found.values(), key=lambda extent: extent.start):
        if extent.start < end:
            raise ValueError("two members of the archive share their bytes")
        end = extent.start + extent.size
    if end > os.fstat(stream.fileno()).st_size:
        raise ValueError("it is cut off: its last member is longer than the file")
    return found


def _content(stream: BufferedReader, extent: Extent) -> bytes:
    if extent.size > _LONGEST_PICKLE:
        raise ValueError(f"its pickle has {extent.size} bytes, more than any file of weights needs")
    content = extent.read(stream)
    extent.check(content)
    return content.numpy().tobytes()


def _read_stream(stream: BufferedReader) -> Any:
    """Five pickles (magic number, version, machine, the value, keys of storages), then the values of tensors."""
    stream.seek(0)
    pickles = BytesIO(stream.read(_LONGEST_PICKLE))
    try:
        known = unpickle(pickles) == _MAGIC
    except ValueError as error:
        raise ValueError("it is not a file of torch.save: neither a zip archive nor the older stream format") from error
    if not known or unpickle(pickles) != _STREAM_VERSION:
        raise ValueError("it is a pickle, but not of torch.save")
    if unpickle(pickles).get("little_endian") is not True:
        raise ValueError("its values are big-endian, which is not supported")
    types: dict[str, torch.dtype] = {}

    def with_type(id: Any) -> Persistent:
        key, dtype, _ = _facts(id)
        if types.setdefault(key, dtype) != dtype:
            raise ValueError(f"storage {key} has two types")
        return Persistent(id)

    found = unpickle(pickles, with_type)
    extents = _extents_after(stream, pickles, types)

    def storage(id: Any) -> Storage:
        key, dtype, count = _facts(id)
        if key not in extents:
            raise ValueError(f"the values of storage {key} are missing")
        return Storage(extents[key], dtype, count)

    return to_values(found, storage)


def _extents_after(stream: BufferedReader, pickles: BytesIO, types: Mapping[str, torch.dtype]) -> dict[str, Extent]:
    """Positions of the storages after the pickles: one after the other, each after its number of values."""
    keys, position = unpickle(pickles), pickles.tell()
    size, found = os.fstat(stream.fileno()).st_size, dict[str, Extent]()
    for key in keys:
        stream.seek(position)
        (count,) = struct.unpack("<q", stream.read(8))
        found[key] = Extent(position + 8, count * types[key].itemsize)
        position += 8 + found[key].size
        if count < 0 or position > size:
            raise ValueError(f"it is cut off: storage {key} claims {count} values")
    return found


def _facts(id: Any) -> tuple[str, torch.dtype, int]:
    """Key, type and number of values of a storage, from its persistent id."""
    if not isinstance(id, tuple) or len(id) not in (5, 6) or id[0] != "storage" or id[5:] not in ((), (None,)):
        raise ValueError("a storage in it is not stored in the form of torch.save")
    _, kind, key, _, count = id[:5]
    if not isinstance(key, str) or not isinstance(kind, Name):
        raise ValueError("a storage in it is not stored in the form of torch.save")
    if kind.path not in DTYPES:
        raise ValueError(f"a storage in it has an unsupported type: {kind.path}")
    return key, DTYPES[kind.path], count
