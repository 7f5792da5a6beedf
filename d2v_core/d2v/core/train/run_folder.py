"""Run folder: configuration, metrics, checkpoints and, at the end, the model of a training run.

A checkpoint is complete or absent: it is written under a temporary name, flushed and renamed. The module does not
depend on the training loop.
"""

import filecmp
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs.validators import ge
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from d2v.core.files.atomic import publish, unfinished_folder
from d2v.core.files.folder import write_files
from d2v.core.files.folder_lock import FolderLock, InUseError
from d2v.core.files.space import total_bytes, why_not_written
from d2v.core.train.ranks import world
from d2v.core.train.run_config import RunConfig, RunFolderError
from d2v.core.validators import check

_STATE = "training.pt"


class RunFolder:
    """Folder with `config.yaml`, `metrics.jsonl`, `checkpoints/step-N/` and `model/`, used by one process at a time.

    Changes made when resuming are recorded in `changes.jsonl`, with the update from which they apply.

    With several ranks, only the first one writes and holds the lock; the others read. The lock ends with the process.

    Args:
        path: path of the folder; created if it does not exist.
        config: text of `config.yaml`; a run can only be resumed with the same text, except for changes allowed by
            `judge`.
        description: plain values that describe the model, for the checkpoints' `config.json`; see
            `description_to_plain`.
        files: further files that belong to the model, such as a tokenizer: content by name.
        recipe: text of `recipe.yaml`, which is passed on with the model; "" = none.
        resume: whether to resume an existing run.
        keep: number of newest checkpoints to keep, in addition to the best one.
        judge: function that is called with the text of the existing configuration if it differs; returns a line for
            each change, or raises `RunFolderError` if a change is not allowed. None = no change is allowed.

    Raises:
        RunFolderError: if the folder cannot be written, is in use, contains a run although `resume` is False, or
            contains a run with another configuration that `judge` does not allow.
        ValueError: if `keep` is below 1.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = RunFolder(f"{folder}/run", config="seed: 0", description={})
    ...     run.save(3, {"weight": torch.ones(2)}, {"step": 3})
    ...     run.steps(), run.load()
    ...     run.close()
    ([3], ({'weight': tensor([1., 1.])}, {'step': 3}))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        config: str,
        description: Mapping[str, Any],
        files: Mapping[str, bytes] | None = None,
        recipe: str = "",
        resume: bool = False,
        keep: int = 2,
        judge: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        check(ge(1), keep=keep)
        self.path = Path(path).absolute()
        self.description = description
        self.files = dict(files or {})
        self.recipe = recipe
        self.keep = keep
        self._lock: FolderLock | None = None
        self._config = RunConfig(self.path, config)
        if world()[0] > 0:
            return
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.path)
            self._config.open(resume=resume, judge=judge)
            self._clear()
        except OSError as error:
            self.close()
            raise RunFolderError(
                f"run folder {self.path} cannot be written: {why_not_written(error, self.path)}"
            ) from error
        except InUseError as error:
            raise RunFolderError(f"run folder {error}; wait for it or choose another out") from error
        except BaseException:
            self.close()
            raise

    @property
    def metrics(self) -> Path:
        """Path of the metrics file."""
        return self.path / "metrics.jsonl"

    def steps(self) -> list[int]:
        """Return the numbers of finished updates of the checkpoints, ascending."""
        return _steps(self.path)

    def checkpoint(self, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.path / "checkpoints" / f"step-{step}"

    def settle(self, step: int, changes: Sequence[str] = ()) -> None:
        """Record the changes of a resumed run: update `config.yaml`, and add a line per change to `changes.jsonl`.

        Args:
            step: number of finished updates.
            changes: further changes, in addition to those of the configuration.

        Raises:
            RunFolderError: if a file cannot be written.
        """
        if self._lock is not None:
            self._config.settle(step, changes)

    def save(self, step: int, tensors: Mapping[str, Tensor], state: dict[str, Any], *, best: int | None = None) -> None:
        """Write a checkpoint, unless it exists already, and remove old ones.

        Args:
            step: number of finished updates.
            tensors: parameters and buffers of the model, by their names without wrappers.
            state: training state: tensors and plain values, so that it can be read without running code.
            best: step of a checkpoint that must be kept.

        Raises:
            RunFolderError: if the checkpoint cannot be written, or an old one cannot be removed; existing checkpoints
                stay intact.
        """
        if step not in self.steps():
            try:
                self._write(step, tensors, state)
            except (OSError, SafetensorError) as error:
                kept = self.steps()
                newest = f"the one of update {kept[-1]} is intact" if kept else "there is no earlier one"
                reason = why_not_written(error, self.path, needed=total_bytes([dict(tensors), state]))
                raise RunFolderError(
                    f"the checkpoint of update {step} could not be written to {self.path}: {reason}; {newest}"
                ) from error
        for old in self.steps()[: -self.keep]:
            if old != best:
                self.remove(self.checkpoint(old))

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read the newest checkpoint.

        Returns:
            The tensors and the training state, or None if there is no checkpoint.

        Raises:
            RunFolderError: if the checkpoint is damaged.
        """
        steps = self.steps()
        if not steps:
            return None
        folder = self.checkpoint(steps[-1])
        try:
            tensors = load_file(folder / "model.safetensors")
            state: dict[str, Any] = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # torch and safetensors have no common error class for a damaged file
            raise RunFolderError(f"{folder} is damaged: {error}") from error
        return tensors, state

    def finish(self, step: int) -> None:
        """Write `model/` from the checkpoint of a step; replaces the model of a shorter run."""
        target = self.path / "model"
        weights = "model.safetensors"
        try:
            if target.exists() and filecmp.cmp(target / weights, self.checkpoint(step) / weights, shallow=False):
                return
            with unfinished_folder(self.path, "model") as unfinished:
                for path in self.checkpoint(step).iterdir():
                    if path.name != _STATE:
                        shutil.copyfile(path, unfinished / path.name)
                if metrics := self._metrics_at(step):
                    (unfinished / "metrics.json").write_text(metrics)
                self._replace(target, unfinished)
        except OSError as error:
            raise RunFolderError(
                f"{target} could not be written: {why_not_written(error, self.path)}; the checkpoints are intact"
            ) from error

    def write_model(self, target: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write a model folder somewhere in the run folder, in place of the one that is there.

        Raises:
            OSError: if it cannot be written.
            RunFolderError: if the one that is there cannot be removed.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(self.path, target.name) as unfinished:
            self._fill(unfinished, tensors)
            self._replace(target, unfinished)

    def remove(self, folder: Path) -> None:
        """Remove a folder of the run with all of its files, or leave it as it is.

        Raises:
            RunFolderError: if that is impossible.
        """
        # Rename first, so that a killed process leaves no incomplete checkpoint under this name.
        doomed = folder.with_name(f".old-{folder.name}")
        try:
            folder.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise RunFolderError(
                f"{folder} could not be removed: {why_not_written(error, self.path)}; the newer checkpoints are intact"
            ) from error

    def _replace(self, target: Path, unfinished: Path) -> None:
        if target.exists():
            self.remove(target)
        publish(unfinished, target)

    def _metrics_at(self, step: int) -> str:
        """The metrics of an update, or of the last one before it that has some; empty if there are none."""
        found = ""
        for line in self.metrics.read_text().splitlines() if self.metrics.exists() else ():
            if json.loads(line)["step"] <= step:
                found = f"{line}\n"
        return found

    def close(self) -> None:
        """Release the folder for other processes."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _clear(self) -> None:
        """Remove unfinished files of a killed process."""
        for parent in (self.path, self.path / "checkpoints", *self.path.glob("debug/*")):
            for left in parent.glob(".*-*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _fill(self, unfinished: Path, tensors: Mapping[str, Tensor]) -> None:
        write_files(unfinished, tensors, self.description, self.files)
        if self.recipe:
            (unfinished / "recipe.yaml").write_text(self.recipe)

    def _write(self, step: int, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        with unfinished_folder(self.path / "checkpoints", f"step-{step}") as unfinished:
            self._fill(unfinished, tensors)
            # Write from memory: if torch itself fails to write, it hides the reason.
            buffer = io.BytesIO()
            torch.save(state, buffer)
            # Not getbuffer: after a failed write, its view would outlive the buffer.
            (unfinished / _STATE).write_bytes(buffer.getvalue())
            publish(unfinished, self.checkpoint(step))


def newest_step(path: str | os.PathLike[str]) -> int | None:
    """Return the number of finished updates of a run folder's newest checkpoint; None if there is no checkpoint."""
    return max(_steps(Path(path)), default=None)


def _steps(path: Path) -> list[int]:
    folder = path / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name)))
