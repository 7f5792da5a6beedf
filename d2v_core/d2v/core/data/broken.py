"""What cannot be read: one sample, or all of a data set.

A long run must not die of one truncated file, and must not hide it either: broken samples are skipped, counted and
listed. Nothing here knows what a sample is.
"""

from collections.abc import Mapping

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


def as_broken(error: BrokenSampleError | OSError, sample: int) -> BrokenSampleError:
    """The same for an error of the system, which may know no file."""
    if isinstance(error, BrokenSampleError):
        return error
    name = f"sample {sample}" if error.filename is None else str(error.filename)
    return BrokenSampleError(name, error.strerror or str(error))


def listing(broken: Mapping[str, str], n: int) -> str:
    """Count and list of what could not be read; empty if all could.

    >>> print(listing({"a.png": "no image"}, 3))
    1 of 3 samples could not be read:
      a.png: no image
    """
    if not broken:
        return ""
    lines = [f"  {name}: {broken[name]}" for name in sorted(broken)]
    if len(lines) > _LISTED:
        lines[_LISTED:] = [f"  and {len(lines) - _LISTED} more"]
    return "\n".join([f"{len(broken)} of {n} samples could not be read:", *lines])
