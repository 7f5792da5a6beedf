"""The folder of what d2v keeps from one command to the next: downloaded models, the table of shell completion."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `D2V_CACHE`, or the folder `d2v` in the user's cache folder, which is XDG_CACHE_HOME or `~/.cache`.

    >>> import unittest.mock
    >>> with unittest.mock.patch.dict(os.environ, D2V_CACHE="/data/d2v"):
    ...     cache_folder()
    PosixPath('/data/d2v')
    """
    if given := os.environ.get("D2V_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "d2v"
