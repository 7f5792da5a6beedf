"""The files that a path names: of a folder, a list or one file."""

import os
import stat
from collections.abc import Sequence

from d2v.core.data.broken import DataError
from d2v.core.data.folders.file_set import FileSet, SplitFiles
from d2v.core.data.folders.folder import read_folder
from d2v.core.data.folders.lists import LISTS, read_list
from d2v.core.data.folders.medium import Medium
from d2v.core.data.folders.tree import unreadable


def find_files(path: str, medium: Medium, *, more: Sequence[str] = ()) -> FileSet | None:
    """Return the files that a path names; None = there is no such folder or file.

    Args:
        path: a folder, a list (see `read_list`) or one file.
        medium: what counts as a file.
        more: further columns of lists that are used.

    Raises:
        DataError: if it cannot be read or used.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - any bytes
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise unreadable(error) from error
    if stat.S_ISDIR(mode):
        return read_folder(path, medium)
    if not stat.S_ISREG(mode):
        return None
    if path.lower().endswith(LISTS):
        return read_list(path, medium, more)
    try:
        found = medium.takes(path)
    except OSError as error:
        raise unreadable(error) from error
    if not found:
        raise DataError(
            f"data.path={path!r} is a file, but neither {medium.one} nor a list; list files end in {', '.join(LISTS)}"
        )
    folder, name = os.path.split(path)
    parts = {"train": SplitFiles(paths=[name])}
    return FileSet(medium=medium, path=path, root=folder or ".", parts=parts, has_splits=False)
