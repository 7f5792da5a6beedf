"""Configuration of a run in its folder: that of the start, and the changes with which the run was resumed."""

import difflib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from d2v.core.files.atomic import write_text
from d2v.core.files.space import why_not_written

_logger = logging.getLogger(__name__)


class RunFolderError(RuntimeError):
    """A run folder cannot be used, or a file could not be written to it; files that were saved before are intact."""


class RunConfig:
    """`config.yaml` and `changes.jsonl` of a run folder.

    A change is written once the run goes on with it, not when the folder is opened.

    Args:
        folder: path of the run folder.
        text: of the configuration.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     RunConfig(Path(folder), "lr: 1").open(resume=False, judge=None)
    ...     changed = RunConfig(Path(folder), "lr: 2")
    ...     changed.open(resume=True, judge=lambda before: [f"{before} -> lr: 2"])
    ...     changed.settle(5)
    ...     print(Path(folder, "changes.jsonl").read_text(), end="")
    {"step": 5, "change": "lr: 1 -> lr: 2"}
    """

    def __init__(self, folder: Path, text: str) -> None:
        self._folder = folder
        self._text = text
        self._file = folder / "config.yaml"
        self._changes: Sequence[str] = ()

    def open(self, *, resume: bool, judge: Callable[[str], Sequence[str]] | None) -> None:
        """Write the configuration of a new run, or compare it with that of the run in the folder.

        Args:
            resume: whether to resume an existing run.
            judge: see `RunFolder`.

        Raises:
            RunFolderError: if the folder contains a run although `resume` is False, or one with another configuration
                that `judge` does not allow.
            OSError: if the file cannot be read or written.
        """
        if not self._file.exists():
            write_text(self._file, self._text)
            return
        if not resume:
            raise RunFolderError(
                f"{self._folder} holds a run already; resume it with resume=true, or choose another out"
            )
        if (existing := self._file.read_text()) != self._text:
            self._changes = self._refuse(existing) if judge is None else judge(existing)

    def settle(self, step: int, changes: Sequence[str] = ()) -> None:
        """Write the changes of a resumed run, see `RunFolder.settle`.

        Raises:
            RunFolderError: if a file cannot be written.
        """
        found = [*self._changes, *changes]
        if not found:
            return
        lines = "".join(json.dumps({"step": step, "change": change}) + "\n" for change in found)
        history = self._folder / "changes.jsonl"
        try:
            write_text(history, (history.read_text() if history.exists() else "") + lines)
            write_text(self._file, self._text)
        except OSError as error:
            raise RunFolderError(
                f"{self._folder} cannot be written: {why_not_written(error, self._folder)}; the checkpoints are intact"
            ) from error
        self._changes = ()
        for change in found:
            _logger.warning("resumed at update %d with a change: %s", step, change)

    def _refuse(self, existing: str) -> Sequence[str]:
        changed = [
            line
            for line in difflib.unified_diff(existing.splitlines(), self._text.splitlines(), lineterm="", n=0)
            if line[:1] in "+-" and line[:3] not in ("+++", "---")
        ]
        raise RunFolderError(
            f"{self._folder} was started with another configuration (- old, + new): {'; '.join(changed[:6])}; "
            "choose another out"
        )
