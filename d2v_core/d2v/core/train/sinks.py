"""Sinks for metrics. A sink receives one mapping of name to float per logging interval; there may be several sinks."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from d2v.core.files.space import why_not_written
from d2v.core.train.run_config import RunFolderError


class MetricSink(Protocol):
    """Receives metrics."""

    def start(self, step: int) -> None:
        """Start after `step` finished updates; metrics of later updates that were written before are invalid."""
        ...

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step; when this returns, they are stored permanently."""
        ...

    def close(self) -> None:
        """Finish: no more metrics follow."""
        ...


class JsonLines:
    """Sink that writes one JSON object per line, `step` = finished updates; without gaps or duplicates after a resume.

    Args:
        path: path of the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sink = JsonLines(Path(folder, "metrics.jsonl"))
    ...     sink.start(0)
    ...     sink.write(10, {"loss": 0.5})
    ...     Path(folder, "metrics.jsonl").read_text()
    '{"step": 10, "loss": 0.5}\\n'
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, step: int) -> None:
        """Remove lines of later steps, and a truncated last line.

        Raises:
            RunFolderError: if the file cannot be written.
        """
        with _as_run_folder_error("metrics", self.path):
            if self.path.exists():
                unfinished = self.path.with_name(f".{self.path.name}")
                self._put(unfinished, "w", "".join(self._kept(step)))
                unfinished.replace(self.path)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line.

        Raises:
            RunFolderError: if it cannot be written.
        """
        with _as_run_folder_error("metrics", self.path):
            self._put(self.path, "a", json.dumps({"step": step, **metrics}) + "\n")

    def close(self) -> None:
        """Do nothing: the file is not kept open."""

    def _kept(self, step: int) -> Iterator[str]:
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                written = json.loads(line)["step"]
            except (json.JSONDecodeError, KeyError, TypeError):
                break
            if written <= step:
                yield f"{line}\n"

    @staticmethod
    def _put(path: Path, mode: str, text: str) -> None:
        with path.open(mode) as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


class TensorBoard:
    """Sink that writes TensorBoard events by `torch.utils.tensorboard`; needs the package `tensorboard`.

    Args:
        folder: folder of the event files.

    Raises:
        ImportError: on `start`, if the package is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sink = TensorBoard(Path(folder))
    ...     if sink.available():
    ...         sink.start(0)
    ...         sink.write(10, {"loss": 0.5})
    ...     sink.close()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    @staticmethod
    def available() -> bool:
        """Whether the package is installed."""
        return find_spec("tensorboard") is not None

    def start(self, step: int) -> None:
        """Open an event file that hides earlier events of later steps.

        Raises:
            ImportError: if the package is missing; the message contains the pip command.
            RunFolderError: if the file cannot be written.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "events need tensorboard, which is not installed or too old: pip install 'd2v[tensorboard]'",
                name="tensorboard",
            ) from error
        with _as_run_folder_error("events", self.folder):
            self._writer = SummaryWriter(str(self.folder), purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a scalar for each metric.

        Raises:
            RunFolderError: if they cannot be written.
        """
        with _as_run_folder_error("events", self.folder):
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            # An error here was already raised by `write`: a second error would hide the first.
            with suppress(OSError):
                self._writer.close()


@contextmanager
def _as_run_folder_error(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"{what} could not be written to {path}: {why_not_written(error, path.parent)}; the checkpoints are intact"
        ) from error
