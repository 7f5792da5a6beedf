"""`d2v` with a file that says what it is doing, for test_survival: `python phases.py FOLDER ARGUMENTS...`.

The first byte of `FOLDER/RANK` is `v` in a validation, `c` in the writing of a checkpoint, and `t` in the rest of the
training; the second process of torchrun has the rank 1.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d2v.core.cli import main
from d2v.core.jobs import finetuning
from d2v.core.train import RunFolder


def said(file: int, phase: bytes, work: Callable[..., Any]) -> Callable[..., Any]:
    """A function that says its phase while it works."""

    def run(*args: Any, **options: Any) -> Any:
        os.pwrite(file, phase, 0)
        try:
            return work(*args, **options)
        finally:
            os.pwrite(file, b"t", 0)

    return run


def run_saying(folder: str, arguments: list[str]) -> int:
    """Run `d2v`; the exit code."""
    file = os.open(Path(folder, os.environ.get("RANK", "0")), os.O_RDWR | os.O_CREAT)
    os.pwrite(file, b"-", 0)
    finetuning.scored = said(file, b"v", finetuning.scored)
    RunFolder.save = said(file, b"c", RunFolder.save)  # type: ignore[method-assign]  # to watch it
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run_saying(sys.argv[1], sys.argv[2:]))
