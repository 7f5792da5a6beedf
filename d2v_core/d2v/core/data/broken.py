"""What cannot be read: one sample, or all of a data set.

A long run must not die of one truncated file, and must not hide it either: broken samples are skipped, counted and
listed. Nothing here knows what a sample is.
"""

import traceback
from collections.abc import Mapping
from pathlib import Path

from d2v.core.data.names import escaped

_LISTED = 100


class DataError(RuntimeError):
    """A data set that cannot be used at all; the message names it and the mend."""


class BrokenSampleError(Exception):
    """One sample that cannot be read.

    Args:
        name: what the user knows it by, say a path.
        reason: in one line.

    >>> str(BrokenSampleError("cats/1.jpg", "image file is truncated"))
    'cats/1.jpg: image file is truncated'
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def told(error: Exception, sample: int) -> tuple[str, str]:
    """Name and reason of a broken sample, each in one line, from whatever error its reading ended in.

    >>> told(ValueError("no such chunk"), 7)
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
    """Count and list of what could not be read; empty if all could.

    Args:
        broken: name to reason.
        n: samples there are; None = that is not known.

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
    """The error of a data set of which no sample can be read; one reason for all is told once.

    >>> str(nothing_readable({"sample 0": "KeyError: 'x'", "sample 7": "KeyError: 'x'"}, 9))
    "no sample can be read: all 2 that were tried fail alike, with KeyError: 'x'"
    """
    if len(broken) > 1 and len(set(broken.values())) == 1:
        reason = next(iter(broken.values()))
        return DataError(f"no sample can be read: all {len(broken)} that were tried fail alike, with {reason}")
    return DataError(f"no sample can be read; {listing(broken, n)}")
