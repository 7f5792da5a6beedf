"""Paths of files and folders as strings: as typed, except that `~` is expanded."""

import os
from typing import Annotated, Any, get_args, get_origin

__all__ = ["PathText", "expanded", "is_path"]

PathText = Annotated[str, "path"]
"""Type of a field with a path or the name of a built-in data set; `~` and `~user` are expanded when it is set."""


def expanded(value: str | os.PathLike[str]) -> str:
    """Return a path as a string, with `~` and `~user` expanded.

    >>> from pathlib import Path
    >>> expanded(Path("photos") / "train")
    'photos/train'
    >>> expanded("~/photos") == str(Path.home() / "photos")
    True
    """
    return os.path.expanduser(os.fspath(value))  # noqa: PTH111 - a Path would drop ./ and double slashes


def is_path(declared: Any) -> bool:
    """Whether a field of this type contains a path.

    >>> is_path(PathText), is_path(PathText | None), is_path(str)
    (True, True, False)
    """
    if get_origin(declared) is Annotated:
        return "path" in get_args(declared)[1:]
    return any(is_path(part) for part in get_args(declared))
