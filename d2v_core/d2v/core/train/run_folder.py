"""What a training run leaves on the disk: its configuration, metrics, checkpoints and, at the end, its model.

A checkpoint is complete or absent: it is written under another name, flushed and renamed. The folder knows nothing of
the loop; it keeps what it is given.
"""

import difflib
import filecmp
import io
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs.validators import ge
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from d2v.core.files.atomic import publish, write_text
from d2v.core.files.folder import write_files
from d2v.core.train.folder_lock import FolderLock, InUseError
from d2v.core.train.gradients import world
from d2v.core.validators import check
from d2v.core.wrappers import load_plain_state

_logger = logging.getLogger(__name__)
_STATE = "training.pt"


class RunFolderError(RuntimeError):
    """A run folder cannot be used, or something could not be written to it; what was saved before is whole."""


class RunFolder:
    """`config.yaml`, `metrics.jsonl`, `checkpoints/step-N/` and `model/` under one path; one process at a time.

    What was changed when a run was resumed stands in `changes.jsonl`, with the update from which on it holds.

    Of several ranks only the first writes and holds the lock; the others read. The lock ends with the process.

    Args:
        path: made if need be.
        config: text of `config.yaml`; to go on, a run must have been started with the same.
        description: plain values of what the model is, for the checkpoints' `config.json`; see `description_to_plain`.
        files: further files that belong to the model, such as a tokenizer: content by name.
        resume: whether to go on with the run that is there, if one is.
        keep: how many of the newest checkpoints to keep; the best is kept beside them.
        judge: asked where the run was started with another configuration, with its text: gives a line for each change
            that the run may be resumed with, or raises `RunFolderError`. None = with none.

    Raises:
        RunFolderError: if it cannot be written, is in use, holds a run although `resume` is False, or holds a run of
            another configuration that `judge` does not allow.
        ValueError: if `keep` is below 1.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = RunFolder(f"{folder}/run", config="seed: 0", description={})
    ...     run.save(3, nn.Linear(2, 2), {"step": 3})
    ...     run.steps(), run.load(nn.Linear(2, 2))
    ...     run.close()
    ([3], {'step': 3})
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        config: str,
        description: Mapping[str, Any],
        files: Mapping[str, bytes] | None = None,
        resume: bool = False,
        keep: int = 2,
        judge: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        check(ge(1), keep=keep)
        self.path = Path(path).absolute()
        self.description = description
        self.files = dict(files or {})
        self.keep = keep
        self._lock: FolderLock | None = None
        self._config = config
        self._changes: Sequence[str] = ()
        if world()[0] > 0:
            return
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.path)
            self._enter(config, resume, judge)
        except OSError as error:
            self.close()
            raise RunFolderError(f"run folder {self.path} cannot be written: {_reason(error)}") from error
        except InUseError as error:
            raise RunFolderError(str(error)) from error
        except BaseException:
            self.close()
            raise

    @property
    def metrics(self) -> Path:
        """Where the metrics go."""
        return self.path / "metrics.jsonl"

    def steps(self) -> list[int]:
        """Finished updates of the checkpoints, ascending."""
        return _steps(self.path)

    def checkpoint(self, step: int) -> Path:
        """Folder of a checkpoint."""
        return self.path / "checkpoints" / f"step-{step}"

    def settle(self, step: int, changes: Sequence[str] = ()) -> None:
        """Write down what a run is resumed with that was otherwise before: in `config.yaml`, and as a line a change.

        Args:
            step: finished updates.
            changes: further ones, beside those of the configuration.

        Raises:
            RunFolderError: if it cannot be written.
        """
        found = [*self._changes, *changes]
        if self._lock is None or not found:
            return
        lines = "".join(json.dumps({"step": step, "change": change}) + "\n" for change in found)
        history = self.path / "changes.jsonl"
        try:
            write_text(history, (history.read_text() if history.exists() else "") + lines)
            write_text(self.path / "config.yaml", self._config)
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be written: {_reason(error)}; the checkpoints are whole"
            ) from error
        self._changes = ()
        for change in found:
            _logger.warning("resumed at update %d with a change: %s", step, change)

    def save(self, step: int, model: nn.Module, state: dict[str, Any], *, best: int | None = None) -> None:
        """Write a checkpoint, unless it is there already, and remove old ones.

        Args:
            step: finished updates.
            model: whose tensors.
            state: the training state: tensors and plain values, so that it can be read without running code.
            best: the step of a checkpoint to keep however old it is.

        Raises:
            RunFolderError: if it cannot be written, or an old one not removed; what is there stays whole.
        """
        if step not in self.steps():
            try:
                self._write(step, model, state)
            except (OSError, SafetensorError) as error:
                kept = self.steps()
                newest = f"the one of update {kept[-1]} is whole" if kept else "it was the first"
                raise RunFolderError(
                    f"the checkpoint of update {step} could not be written to {self.path}: {_reason(error)}; {newest}"
                ) from error
        for old in self.steps()[: -self.keep]:
            if old != best:
                self._remove(self.checkpoint(old))

    def load(self, model: nn.Module) -> dict[str, Any] | None:
        """Read the newest checkpoint into the model.

        Returns:
            The training state, or None if there is no checkpoint.

        Raises:
            RunFolderError: if it is broken, or of another model.
        """
        steps = self.steps()
        if not steps:
            return None
        folder = self.checkpoint(steps[-1])
        try:
            load_plain_state(model, load_file(folder / "model.safetensors"))
            state: dict[str, Any] = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # torch and safetensors have no common class for a broken file
            raise RunFolderError(f"{folder} is broken or of another model: {error}") from error
        return state

    def finish(self, step: int) -> None:
        """Write `model/` from the checkpoint of a step; in place of another model, of a run that was shorter."""
        target = self.path / "model"
        weights = "model.safetensors"
        try:
            if target.exists():
                if filecmp.cmp(target / weights, self.checkpoint(step) / weights, shallow=False):
                    return
                self._remove(target)
            with self._unfinished(self.path, "model") as unfinished:
                for path in self.checkpoint(step).iterdir():
                    if path.name != _STATE:
                        shutil.copyfile(path, unfinished / path.name)
                publish(unfinished, target)
        except OSError as error:
            raise RunFolderError(
                f"{target} could not be written: {_reason(error)}; the checkpoints are whole"
            ) from error

    def close(self) -> None:
        """Let others use the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _enter(self, config: str, resume: bool, judge: Callable[[str], Sequence[str]] | None) -> None:
        file = self.path / "config.yaml"
        if file.exists():
            if not resume:
                raise RunFolderError(
                    f"{self.path} holds a run already; resume=true goes on with it, or give another out"
                )
            if (there := file.read_text()) != config:
                self._changes = _refused(self.path, there, config) if judge is None else judge(there)
        else:
            write_text(file, config)
        for parent in (self.path, self.path / "checkpoints"):
            for left in parent.glob(".*-*"):  # what a killed process had not finished
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _write(self, step: int, model: nn.Module, state: dict[str, Any]) -> None:
        with self._unfinished(self.path / "checkpoints", f"step-{step}") as unfinished:
            write_files(unfinished, model, self.description, self.files)
            # Through memory: torch hides the reason if it is torch that cannot write.
            buffer = io.BytesIO()
            torch.save(state, buffer)
            # Not getbuffer: after a failed write its view would outlive the buffer.
            (unfinished / _STATE).write_bytes(buffer.getvalue())
            publish(unfinished, self.checkpoint(step))

    @staticmethod
    @contextmanager
    def _unfinished(parent: Path, name: str) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # a full disk needs the room
            raise

    @staticmethod
    def _remove(folder: Path) -> None:
        # Renamed first: a kill in the middle must not leave half a checkpoint under its name.
        doomed = folder.with_name(f".old-{folder.name}")
        try:
            folder.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise RunFolderError(
                f"{folder} could not be removed: {_reason(error)}; the newer checkpoints are whole"
            ) from error


def newest_step(path: str | os.PathLike[str]) -> int | None:
    """Finished updates of the newest checkpoint of a run folder; None if it has none, or is not there."""
    return max(_steps(Path(path)), default=None)


def _steps(path: Path) -> list[int]:
    folder = path / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name)))


def _refused(path: Path, there: str, here: str) -> Sequence[str]:
    changed = [
        line
        for line in difflib.unified_diff(there.splitlines(), here.splitlines(), lineterm="", n=0)
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    raise RunFolderError(
        f"{path} was started with another configuration (- there, + here): {'; '.join(changed[:6])}; give another out"
    )


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
