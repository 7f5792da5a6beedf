"""Errors of unreadable data: one broken sample, or a data set that cannot be used.

One truncated file must not end a long run, and must not go unnoticed: broken samples are skipped, counted and listed.
This module is independent of the type of the samples.
"""

import traceback
from collections.abc import Mapping
from pathlib import Path

from d2v.core.data.names import escaped

_LISTED = 100


class DataError(RuntimeError):
    """The data set cannot be used. The message names it and the fix."""


class BrokenSampleError(Exception):
    """One sample that cannot be read.

    Args:
        name: name of the sample as the user knows it, such as a path.
        reason: why it cannot be read, in one line.

    >>> str(BrokenSampleError("cats/1.jpg", "image file is truncated"))
    'cats/1.jpg: image file is truncated'
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def error_reason(error: Exception, sample: int) -> tuple[str, str]:
    """Name and reason of a broken sample, each in one line, from the error that reading it raised.

    >>> error_reason(ValueError("no such chunk"), 7)
    ('sample 7', 'ValueError: no such chunk')
    """
    if isinstance(error, BrokenSampleError):
        return escaped(error.name), _one_line(error.reason)
    if isinstance(error, OSError):
        name = f"sample {sample}" if error.filename is None else escaped(str(error.filename))
        return name, _one_line(error.strerror or str(error))
    reason = _one_line(f"{type(error).__name__}: {error}")
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"sample {sample}", reason + where


def _one_line(text: str) -> str:
    return escaped(" ".join(text.split()))


def listing(broken: Mapping[str, str], n: int | None) -> str:
    """Number and list of the samples that could not be read; empty if there are none.

    Args:
        broken: name to reason.
        n: number of samples in the data set; None = unknown.

    >>> print(listing({"a.png": "no image"}, 3))
    1 of 3 samples could not be read:
      a.png: no image
    """
    if not broken:
        return ""
    lines = [f"  {name}: {broken[name]}" for name in sorted(broken)]
    if len(lines) > _LISTED:
        lines[_LISTED:] = [f"  and {len(lines) - _LISTED} more"]
    return "\n".join([f"{len(broken)}{'' if n is None else f' of {n}'} samples could not be read:", *lines])


def nothing_readable(broken: Mapping[str, str], n: int | None) -> DataError:
    """Error for a data set of which no sample can be read; a reason that all samples share is given once.

    >>> str(nothing_readable({"sample 0": "KeyError: 'x'", "sample 7": "KeyError: 'x'"}, 9))
    "no sample can be read: all 2 that were tried (sample 0, ...) fail with KeyError: 'x'"
    """
    if len(broken) > 1 and len(set(broken.values())) == 1:
        name, reason = next(iter(broken.items()))
        return DataError(f"no sample can be read: all {len(broken)} that were tried ({name}, ...) fail with {reason}")
    return DataError(f"no sample can be read; {listing(broken, n)}")
