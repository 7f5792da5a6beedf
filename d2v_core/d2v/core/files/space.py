"""Why a file could not be written, and how much space there is."""

import errno
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

_NUMBER = re.compile(r"\(os error (\d+)\)")  # in the errors of safetensors


def why_not_written(error: Exception, folder: Path, *, needed: int | None = None) -> str:
    """Return the reason of a failed write in one line; of a full disk, with its free space.

    Args:
        error: OSError, or one that has its number in the text.
        folder: existing folder on the disk.
        needed: bytes of all files together; None = unknown.

    >>> why_not_written(PermissionError(errno.EACCES, "Permission denied"), Path())
    'Permission denied'
    """
    number = error.errno if isinstance(error, OSError) else _stated(error)
    text = os.strerror(number) if number else str(error)
    if number != errno.ENOSPC:
        return text
    wanted = "" if needed is None else f" of about {_megabytes(needed)} that are needed"
    try:
        return f"{text} ({_megabytes(shutil.disk_usage(folder).free)} are free{wanted})"
    except OSError:
        return text


def total_bytes(values: Any) -> int:
    """Bytes of all tensors in nested mappings and lists.

    >>> import torch
    >>> total_bytes({"a": torch.ones(2), "b": [torch.ones(1), 3]})
    12
    """
    if isinstance(values, Tensor):
        return values.nbytes
    below = values.values() if isinstance(values, Mapping) else values if isinstance(values, list | tuple) else ()
    return sum(map(total_bytes, below))


def _stated(error: Exception) -> int | None:
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
