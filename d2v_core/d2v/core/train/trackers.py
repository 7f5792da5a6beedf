"""Sinks for experiment trackers, based on their packages: Weights & Biases and MLflow.

The tracker's own environment variables or files set its address and project. A resumed run continues the same run of
the tracker: its id is stored in the run folder.
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
    """Sink for Weights & Biases by `wandb`, which sends metrics in the background.

    Args:
        folder: run folder; it contains the files of `wandb` and gives the run its name.
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
        """Start a run, or resume the one whose id is in the run folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {"dir": str(self.folder), "name": self.folder.name, "config": dict(self.config)}
        known = {"id": _stored_id(self.folder, "wandb"), "resume": "allow"}
        self._run = import_module("wandb").init(**{**own, **known, **self.init})
        _store_id(self.folder, "wandb", self._run.id)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step; W&B ignores steps that it already has, as after a crash."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """End the run; mark it as failed if an error is being raised."""
        if self._run is not None:
            self._run.finish(exit_code=int(sys.exception() is not None))


class MLflow:
    """Sink for MLflow by `mlflow` or `mlflow-skinny`.

    Args:
        folder: run folder; it gives the run its name.
        config: plain values; each becomes a parameter of the run, by dotted key.

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
        """Start a run, or resume the one whose id is in the run folder."""
        self._client, known = import_module("mlflow"), _stored_id(self.folder, "mlflow")
        # Nested: if the caller has an active run, this one becomes its child.
        self._run = self._client.start_run(run_id=known, run_name=self.folder.name, nested=True).info.run_id
        if known is None:  # parameters cannot be changed afterwards
            self._client.log_params(dict(_dotted(self.config)))
        _store_id(self.folder, "mlflow", self._run)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._client.log_metrics(dict(metrics), step=step, run_id=self._run)

    def close(self) -> None:
        """End the run; mark it as failed if an error is being raised."""
        if self._run:
            self._client.end_run("FAILED" if sys.exception() is not None else "FINISHED")


def sink_names(value: SinkName | list[SinkName] | tuple[SinkName, ...] | None) -> tuple[SinkName, ...] | None:
    """Return names of sinks as a tuple, from one name or several; None stays None.

    Raises:
        ValueError: if a name is unknown, or given twice.

    >>> sink_names("wandb")
    ('wandb',)
    """
    names = (value,) if isinstance(value, str) else value
    if names is None:
        return None
    known = get_args(SinkName)
    if not isinstance(names, list | tuple) or any(name not in known or names.count(name) > 1 for name in names):
        raise ValueError(f"sinks={value!r} must be a list of {', '.join(known)}, each at most once")
    return tuple(names)


def sinks_by_name(names: tuple[SinkName, ...] | None, folder: Path, config: Mapping[str, Any]) -> list[MetricSink]:
    """Return the sinks of a run folder, without writing anything yet.

    Args:
        names: names of the sinks; None = TensorBoard, if it is installed.
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
        raise MissingExtraError(f"the sink {name} needs {name}, which is not installed: pip install {name}", name=name)


def _stored_id(folder: Path, tracker: str) -> str | None:
    file = folder / f"{tracker}.id"
    return file.read_text().strip() if file.is_file() else None


def _store_id(folder: Path, tracker: str, run: str) -> None:
    write_text(folder / f"{tracker}.id", f"{run}\n")


def _dotted(values: Mapping[str, Any], below: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{below}{name}.")
        else:
            yield f"{below}{name}", value
