"""Read recordings as mono waveforms at the model's rate, or report why they are broken.

soundfile is imported when the first file is read. An error of any type affects only its own file.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from d2v.core.data import BrokenSampleError
from d2v.core.data.folders.regular import check_regular

if TYPE_CHECKING:
    from soundfile import SoundFile

_BLOCK = 1 << 20  # samples read at a time: a header may announce more than fits into memory
_ENTRY = re.compile(r"(?P<archive>.+\.zip):(?P<offset>\d+):(?P<length>\d+)", re.DOTALL)
# Remarks of libsndfile on a header: a size beyond the end of the file, and bytes that belong to no part of it.
_STATED = re.compile(r": (\d+) \(should be (\d+)\)")
_STRAY = re.compile(r"Length : (\d+)\n.*at position (\d+)\. Exiting parser", re.DOTALL)
_UNKNOWN = 0x7FFFF000  # sizes from here on are written by programs that did not know the length
_SLACK = 64  # bytes; padding is counted in different ways
_TAIL = 0.1  # of the file; some programs append tags


@frozen(kw_only=True)
class Reader:
    """Reader of recordings.

    A file of another rate or with several channels is broken, and the reason names the key to set: nothing is converted
    without being asked for.

    Args:
        sample_rate: of the result, in Hz.
        resample: whether files of other rates are resampled.
        mixdown: whether several channels are averaged.
        normalize: whether each recording is scaled to zero mean and unit variance, over all its samples (a layer
            norm without weights, eps 1e-5). Silence becomes zeros.

    >>> Reader().finished(torch.ones(400)).abs().max()
    tensor(0.)
    """

    sample_rate: int = 16000
    resample: bool = False
    mixdown: bool = False
    normalize: bool = True

    def read(self, path: str | os.PathLike[str]) -> Tensor:
        """Return a recording as float32 `s`.

        Args:
            path: of a file, or `ARCHIVE.zip:OFFSET:LENGTH`, the bytes of a member that is stored uncompressed.

        Raises:
            BrokenSampleError: if the file cannot be read, is incomplete, or of another rate or number of channels.
        """
        name = os.fspath(path)
        try:
            with _opened(name) as file:
                found = _samples(file)
                return self.converted(found, file.samplerate)
        except Exception as error:  # decoders raise anything on unknown files
            raise BrokenSampleError(name, reason(error)) from error

    def length(self, path: str) -> int:
        """Length of a recording in samples of the result, from its header; -1 = the header cannot be read."""
        try:
            with _opened(path) as file:
                return self.resampled_length(int(file.frames), int(file.samplerate))
        except Exception:  # `read` gives the reason
            return -1

    def resampled_length(self, length: int, rate: int) -> int:
        """Number of samples after resampling."""
        return -(-length * self.sample_rate // rate) if self.resample else length

    def converted(self, samples: Tensor, rate: int) -> Tensor:
        """Convert samples to the result.

        Args:
            samples: float32 `s` or `s c`.
            rate: their rate in Hz.

        Raises:
            ValueError: if rate or channels differ, samples are too few, or they are not finite.
        """
        if samples.dim() == 2 and samples.shape[1] > 1 and not self.mixdown:
            raise ValueError(f"{samples.shape[1]} channels; set data.mixdown=true to average them")
        if samples.dim() == 2:
            samples = samples.mean(1) if samples.shape[1] > 1 else samples[:, 0]
        if rate != self.sample_rate and not self.resample:
            raise ValueError(
                f"{rate} Hz instead of data.sample_rate={self.sample_rate}; set data.resample=true to resample"
            )
        if rate != self.sample_rate:
            from torchaudio.functional import resample

            samples = resample(samples, rate, self.sample_rate)
        return self.finished(samples)

    def finished(self, samples: Tensor) -> Tensor:
        """Check and normalise samples `s` at the rate of the result.

        Raises:
            ValueError: if they are shorter than a frame of 25 ms, or not finite.
        """
        if len(samples) < self.shortest:
            raise ValueError(f"{len(samples)} samples are shorter than a frame of {self.shortest} (25 ms)")
        if not bool(samples.isfinite().all()):
            raise ValueError("some samples are NaN or infinite")
        return F.layer_norm(samples, samples.shape) if self.normalize else samples

    @property
    def shortest(self) -> int:
        """Samples of one frame of the published front end, 25 ms."""
        return self.sample_rate // 40


def entry_of(path: str) -> tuple[str, int, int] | None:
    """Archive, offset and length of a path that names the bytes of a zip member; None = it names a file.

    >>> entry_of("a.zip:17:400"), entry_of("a.flac")
    (('a.zip', 17, 400), None)
    """
    found = _ENTRY.fullmatch(path)
    return None if found is None else (found["archive"], int(found["offset"]), int(found["length"]))


def reason(error: Exception) -> str:
    """Describe why a recording could not be read."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__


@contextmanager
def _opened(path: str) -> Iterator["SoundFile"]:
    import soundfile

    entry = entry_of(path)
    name = path if entry is None else entry[0]
    check_regular(name)
    if os.stat(name).st_size == 0:  # noqa: PTH116 - any bytes
        raise ValueError("the file is empty")
    source: bytes | io.BytesIO = os.fsencode(path) if entry is None else io.BytesIO(_entry(*entry))
    with soundfile.SoundFile(source) as file:
        yield file


def _entry(archive: str, offset: int, length: int) -> bytes:
    with open(archive, "rb") as file:  # noqa: PTH123 - any bytes
        file.seek(offset)
        content = file.read(length)
    if len(content) < length:
        raise ValueError(f"{archive} ends before byte {offset + length}")
    return content


def _samples(file: "SoundFile") -> Tensor:
    """All samples of an opened file, float32 `s c`.

    Raises:
        ValueError: if there are more or fewer than the header says.
    """
    _check_header(file.extra_info)
    blocks = []
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        blocks.append(torch.from_numpy(block))
    count = sum(map(len, blocks))
    if count != file.frames:
        raise ValueError(f"the file is truncated: its header announces {file.frames} samples, {count} are there")
    return torch.cat(blocks) if blocks else torch.zeros(0, 1)


def _check_header(remarks: str) -> None:
    for stated, present in _STATED.findall(remarks):
        if int(present) + _SLACK < int(stated) < _UNKNOWN:
            raise ValueError(f"the file is truncated: its header announces {stated} bytes, {present} are there")
    stray = _STRAY.search(remarks)
    if stray is not None and int(stray[1]) - int(stray[2]) > _TAIL * int(stray[1]):
        raise ValueError(f"the header describes only {stray[2]} of {stray[1]} bytes of the file")
