"""Token files: `NAME.bin` with the ids of all lines in a row, and `NAME.idx` with the lengths of the lines.

The format is that of the original toolkit's binarised data, so its files are read as they are, and it reads ours. Each
line ends with `</s>`; a line of `</s>` alone is an empty line, which separates documents. Files are mapped into memory:
opening one takes the same time for any size.
"""

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from d2v.core.data import BrokenSampleError, DataError, escaped

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_TYPES: dict[int, str] = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}
_HEADER = len(_MAGIC) + 8 + 1 + 8
_SIZE, _OFFSET = 4, 8  # bytes of a line in the index: its length, and where it starts
_UINT16_BELOW = 65500  # vocabulary size from which the original toolkit takes 32 bits
_CHUNK = 1 << 20


class TokenFile:
    """The tokens of a split, mapped into memory.

    Args:
        stem: path without `.bin` and `.idx`.

    Attributes:
        keeps: an object that exists as long as this one, such as a temporary folder of the files.

    Raises:
        DataError: if a file is missing, cut off or of another format.
    """

    keeps: object = None

    def __init__(self, stem: str | os.PathLike[str]) -> None:
        self.stem = os.fspath(stem)
        index, content = Path(f"{self.stem}.idx"), Path(f"{self.stem}.bin")
        self.dtype, self.num_lines = _read_header(index)
        wanted = _HEADER + self.num_lines * (_SIZE + _OFFSET)
        _check_size(index, wanted, f"an index of {self.num_lines} lines")
        self.sizes: NDArray[np.int32] = _mapped(index, "<i4", _HEADER, self.num_lines)
        self._offsets: NDArray[np.int64] = _mapped(index, "<i8", _HEADER + _SIZE * self.num_lines, self.num_lines)
        end = int(self._offsets[-1]) + int(self.sizes[-1]) * self.dtype.itemsize if self.num_lines else 0
        _check_size(content, end, f"the tokens that {index.name} lists")
        self.num_tokens = end // self.dtype.itemsize
        self._tokens: NDArray[Any] = _mapped(content, self.dtype.str, 0, self.num_tokens)
        self._bytes = ((str(index), wanted), (str(content), end))

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the ids from one place to another, Long `stop - start`."""
        return self._tokens[start:stop].astype(np.int64)

    def check_whole(self) -> None:
        """Check that nobody has cut the files off since they were opened; a file that was removed can still be read.

        Raises:
            BrokenSampleError: naming the file. The system would kill a process that reads a mapped file beyond its end.
        """
        for path, size in self._bytes:
            try:
                found = os.stat(path).st_size  # noqa: PTH116 - for each sample
            except OSError:
                continue
            if found < size:
                raise BrokenSampleError(path, f"the file was cut off: it had {size} bytes and has {found}; restore it")

    def starts(self, first: int, last: int) -> NDArray[np.int64]:
        """Return where the lines from `first` to before `last` start, in tokens; the line after all starts at the end.

        >>> TokenFile("tokens/train").starts(0, 2)  # doctest: +SKIP
        array([ 0, 17])
        """
        found = np.array(self._offsets[first:last]) // self.dtype.itemsize
        return np.append(found, self.num_tokens) if last > self.num_lines else found

    def largest(self, most: int) -> int:
        """Return the largest id of at most about `most` tokens, at places spread over the file; -1 = it is empty."""
        parts = max(1, -(-most // _CHUNK))
        step = max(_CHUNK, -(-self.num_tokens // parts))
        places = range(0, self.num_tokens, step)
        return max((int(self._tokens[place : place + _CHUNK].max()) for place in places), default=-1)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFile, (self.stem,)


class TokenWriter:
    """Writes lines of tokens to two open files, with memory for one call at a time.

    Args:
        content: file for the ids, `NAME.bin`.
        index: file for the lengths, `NAME.idx`; it has a name and can be read.
        dtype: of the ids in the file, see `type_of_ids`.
        num_lines: lines to go on after; what follows them is cut off.
        num_tokens: tokens of these lines.
    """

    def __init__(
        self,
        content: BinaryIO,
        index: BinaryIO,
        dtype: "np.dtype[Any]",
        *,
        num_lines: int = 0,
        num_tokens: int = 0,
    ) -> None:
        self._content, self._index, self._dtype = content, index, dtype
        self.num_lines, self.num_tokens = num_lines, num_tokens
        for file, size in zip((content, index), unfinished_sizes(num_lines, num_tokens, dtype), strict=True):
            file.truncate(size)
            file.seek(size)

    def add(self, ids: NDArray[Any], sizes: NDArray[Any]) -> None:
        """Append lines.

        Args:
            ids: of all lines, in a row.
            sizes: tokens of each line, `</s>` included.
        """
        self._content.write(ids.astype(self._dtype).tobytes())
        self._index.write(sizes.astype("<i4").tobytes())
        self.num_lines += len(sizes)
        self.num_tokens += len(ids)

    def finish(self) -> None:
        """Complete the index."""
        self._index.flush()
        place = 0
        with open(self._index.name, "rb") as sizes:  # noqa: PTH123 - the name of an open file
            sizes.seek(_HEADER)
            for first in range(0, self.num_lines, _CHUNK):
                count = min(_CHUNK, self.num_lines - first)
                lengths = np.frombuffer(sizes.read(_SIZE * count), "<i4").astype(np.int64) * self._dtype.itemsize
                ends = place + lengths.cumsum()
                self._index.write((ends - lengths).astype("<i8").tobytes())
                place = int(ends[-1])
        self._index.seek(0)
        code = next(code for code, name in _TYPES.items() if np.dtype(name) == self._dtype)
        numbers = (_VERSION.to_bytes(8, "little"), bytes([code]), self.num_lines.to_bytes(8, "little"))
        self._index.write(b"".join([_MAGIC, *numbers]))
        self._index.seek(0, os.SEEK_END)


def unfinished_sizes(num_lines: int, num_tokens: int, dtype: "np.dtype[Any]") -> tuple[int, int]:
    """Bytes of the two files that a `TokenWriter` has written, before it finishes.

    >>> unfinished_sizes(0, 0, type_of_ids(1000))
    (0, 26)
    """
    return num_tokens * dtype.itemsize, _HEADER + num_lines * _SIZE


def type_of_ids(vocabulary_size: int) -> "np.dtype[Any]":
    """The type of ids in a token file, by the rule of the original toolkit.

    >>> type_of_ids(1000), type_of_ids(70_000)
    (dtype('uint16'), dtype('uint32'))
    """
    return np.dtype("<u2" if vocabulary_size < _UINT16_BELOW else "<u4")


def token_splits(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the splits of a folder of token files, sorted; [] = it has none.

    The original toolkit's names are shortened: `train` for `train.src-None.idx`.
    """
    return sorted(_stems(folder))


def open_tokens(folder: str | os.PathLike[str], split: str) -> TokenFile:
    """Open the token file of a split that `token_splits` lists."""
    return TokenFile(Path(folder) / _stems(folder)[split])


def _stems(folder: str | os.PathLike[str]) -> dict[str, str]:
    names = [path.name.removesuffix(".idx") for path in Path(folder).glob("*.idx") if not path.name.startswith(".")]
    return {name.split(".")[0]: name for name in names}


def _read_header(index: Path) -> tuple["np.dtype[Any]", int]:
    try:
        with index.open("rb") as file:
            header = file.read(_HEADER)
    except OSError as error:
        raise DataError(f"{escaped(str(index))} cannot be read: {error.strerror}") from error
    if header[: len(_MAGIC)] != _MAGIC[: len(header)]:
        raise DataError(f"{escaped(str(index))} is not the index of a token file: it does not begin with MMIDIDX")
    if len(header) < _HEADER:
        raise DataError(f"{escaped(str(index))} is cut off: it has {len(header)} bytes, fewer than its header")
    version, code = int.from_bytes(header[9:17], "little"), header[17]
    if version != _VERSION or code not in _TYPES:
        raise DataError(f"{escaped(str(index))} has version {version} and type {code}; only version 1 of ids is read")
    return np.dtype(_TYPES[code]), int.from_bytes(header[18:26], "little")


def _check_size(path: Path, wanted: int, what: str) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"{escaped(str(path))} cannot be read: {error.strerror}") from error
    if found != wanted:
        state = "is cut off" if found < wanted else "does not fit its index"
        raise DataError(f"{escaped(str(path))} {state}: it has {found} bytes, but {what} take {wanted}; make it again")


def _mapped(path: Path, dtype: str, offset: int, count: int) -> NDArray[Any]:
    if not count:
        return np.empty(0, np.dtype(dtype))  # an empty file cannot be mapped
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))
