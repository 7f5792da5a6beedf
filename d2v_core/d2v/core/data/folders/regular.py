"""Refuse anything but regular files: opening a pipe would block until something is written to it."""

import errno
import os
import stat

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(name: str) -> None:
    """Check that a path names a regular file.

    Raises:
        OSError: naming what it is instead, or if there is no such file.
    """
    kind = stat.S_IFMT(os.stat(name).st_mode)  # noqa: PTH116 - any bytes
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'a special file')}, not a file")
