"""Metrics for other people's trackers, by their own packages: Weights & Biases and MLflow.

Where a tracker is and what project a run belongs to is said in its own way, by its environment variables or files. A
resumed run goes on as the same run there: its id is kept in the run folder.
"""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from d2v.core.files.atomic import write_text
from d2v.core.registry import MissingExtraError
from d2v.core.train.sinks import MetricSink, TensorBoard

SinkName = Literal["tensorboard", "wandb", "mlflow"]


class WandB:
    """A run of Weights & Biases, through `wandb`, which sends metrics in the background.

    Args:
        folder: run folder; what `wandb` writes lies in it, and the run has its name.
        config: plain values that are sent with the run.
        init: arguments of `wandb.init`, such as `project`.

    Raises:
        MissingExtraError: if the package is not installed.

    >>> WandB(Path("run"), {"seed": 0}, project="mine").start(0)  # doctest: +SKIP
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], **init: Any) -> None:
        _require("wandb")
        self.folder, self.config, self.init = folder, config, init
        self._run: Any = None

    def start(self, step: int) -> None:
        """Begin a run, or go on with the one whose id is in the run folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {"dir": str(self.folder), "name": self.folder.name, "config": dict(self.config)}
        known = {"id": _known_run(self.folder, "wandb"), "resume": "allow"}
        self._run = import_module("wandb").init(**{**own, **known, **self.init})
        _keep_run(self.folder, "wandb", self._run.id)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step; W&B leaves out a step that it has, as after a crash, with the same values."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """End the run: as failed, where an error ends it."""
        if self._run is not None:
            self._run.finish(exit_code=int(sys.exception() is not None))


class MLflow:
    """A run of MLflow, through `mlflow` or `mlflow-skinny`.

    Args:
        folder: run folder; the run has its name.
        config: plain values; each is a parameter of the run, by dotted key.

    Raises:
        MissingExtraError: if the package is not installed.

    >>> MLflow(Path("run"), {"seed": 0}).start(0)  # doctest: +SKIP
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        _require("mlflow")
        self.folder, self.config = folder, config
        self._client: Any = None
        self._run = ""

    def start(self, step: int) -> None:
        """Begin a run, or go on with the one whose id is in the run folder."""
        self._client, known = import_module("mlflow"), _known_run(self.folder, "mlflow")
        # Nested: whoever calls this in a run of his own finds it below that.
        self._run = self._client.start_run(run_id=known, run_name=self.folder.name, nested=True).info.run_id
        if known is None:  # parameters cannot be changed afterwards
            self._client.log_params(dict(_dotted(self.config)))
        _keep_run(self.folder, "mlflow", self._run)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._client.log_metrics(dict(metrics), step=step, run_id=self._run)

    def close(self) -> None:
        """End the run: as failed, where an error ends it."""
        if self._run:
            self._client.end_run("FAILED" if sys.exception() is not None else "FINISHED")


def sink_names(value: SinkName | list[SinkName] | tuple[SinkName, ...] | None) -> tuple[SinkName, ...] | None:
    """Names of sinks, as they are given: one name or several; None stays None.

    Raises:
        ValueError: if one is unknown, or stands twice.

    >>> sink_names("wandb")
    ('wandb',)
    """
    names = (value,) if isinstance(value, str) else value
    if names is None:
        return None
    known = get_args(SinkName)
    if not isinstance(names, list | tuple) or any(name not in known or names.count(name) > 1 for name in names):
        raise ValueError(f"sinks={value!r} must be a list out of {', '.join(known)}")
    return tuple(names)


def sinks_by_name(names: tuple[SinkName, ...] | None, folder: Path, config: Mapping[str, Any]) -> list[MetricSink]:
    """Sinks for a run folder; nothing is written yet.

    Args:
        names: which; None = TensorBoard, if it is installed.
        folder: run folder.
        config: plain values that are sent with the run.

    Raises:
        MissingExtraError: if a package is not installed.

    >>> sinks_by_name((), Path("run"), {})
    []
    """
    chosen: tuple[SinkName, ...] = ("tensorboard",) if TensorBoard.available() else ()
    trackers: dict[SinkName, type[WandB] | type[MLflow]] = {"wandb": WandB, "mlflow": MLflow}
    return [
        trackers[name](folder, config) if name in trackers else TensorBoard(folder / "tensorboard")
        for name in (chosen if names is None else names)
    ]


def _require(name: str) -> None:
    if find_spec(name) is None:
        raise MissingExtraError(f"metrics cannot go to {name}, which is not installed: pip install {name}", name=name)


def _known_run(folder: Path, tracker: str) -> str | None:
    file = folder / f"{tracker}.id"
    return file.read_text().strip() if file.is_file() else None


def _keep_run(folder: Path, tracker: str, run: str) -> None:
    write_text(folder / f"{tracker}.id", f"{run}\n")


def _dotted(values: Mapping[str, Any], below: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{below}{name}.")
        else:
            yield f"{below}{name}", value
