"""Fine-tuning with several values of the optimiser's numbers: one run for each, and the best by validation."""

import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from torch import distributed as dist

from d2v.core.files import ConfigError, to_plain
from d2v.core.files.atomic import write_text
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.running import decided_precision, recorded_kernels
from d2v.core.jobs.sweep import Tried, sweep_table
from d2v.core.recipes import FinetuneRecipe
from d2v.core.recipes.comparing import changes
from d2v.core.recipes.sections import AUTO
from d2v.core.recipes.yaml_text import read_yaml
from d2v.core.train import Fitted
from d2v.core.train.ranks import world

_logger = logging.getLogger(__name__)
_SECTION = "optim"
_RESULTS = "runs.json"
_PREFIX = "val_"


@frozen(kw_only=True)
class SeveralRuns(Fitted):
    """Result of several runs: of the best one, and what all of them reached.

    Args:
        out: folder of the best run.
        metric: metric of the validation that the best one is chosen by.
        tried: values and metrics of the best validation of each run, in the order of the values.
        folders: of the runs, in the same order.
    """

    out: str
    metric: str
    tried: tuple[Tried, ...] = field(repr=False)
    folders: tuple[str, ...]

    def text(self) -> str:
        """The table of all runs, and the best one."""
        best = next(one for one in self.tried if one.best)
        values = ", ".join(f"{key}={_shown(value)}" for key, value in best.values.items())
        return (
            f"{sweep_table(self.tried)}\n"
            f"best by {self.metric}: {values}, {best.metrics[self.metric]:.4g} after {self.best_step} updates; "
            f"model={self.out}"
        )


def settings_of_each(
    choices: Mapping[str, Sequence[Any]],
    combined: Sequence[Mapping[str, Any]],
    overrides: Mapping[str, Any],
    read: Callable[[Mapping[str, Any]], FinetuneRecipe],
) -> dict[str, tuple[dict[str, Any], FinetuneRecipe]]:
    """Values and settings of each run, by the name of its folder; all are read before the first run.

    Args:
        choices: values by dotted key.
        combined: combinations of these values.
        overrides: of the command; `out` is the folder of all runs.
        read: function from overrides to settings.

    Raises:
        ConfigError: if a value is wrong or given twice.
    """
    found: dict[str, tuple[dict[str, Any], FinetuneRecipe]] = {}
    for values in combined:
        settings = read({**overrides, **values})
        plain = to_plain(settings)
        own = {key: _at(plain, key) for key in choices}
        name = ",".join(f"{key.removeprefix(f'{_SECTION}.')}={_shown(value)}" for key, value in own.items())
        name = re.sub(r"[^\w.,=+-]", "_", name)
        if name in found:
            raise ConfigError(f"{name} is given twice; give each value once")
        found[name] = own, evolve(settings, out=str(Path(settings.out) / name))
    return found


def run_each(
    runs: Mapping[str, tuple[dict[str, Any], FinetuneRecipe]],
    train: Callable[[FinetuneRecipe], Fitted],
    *,
    metric: str,
    higher: bool,
) -> SeveralRuns:
    """Train each run that is not finished, and compare them by their best validation.

    The results are written to `runs.json` after each run.

    Args:
        runs: values and settings by name, see `settings_of_each`.
        train: function that trains with settings.
        metric: of the validation, without `val_`.
        higher: whether a higher value is better.

    Raises:
        ConfigError: if the metric has no value in any run.
    """
    results: list[tuple[dict[str, Any], Fitted]] = []
    for number, (name, (values, settings)) in enumerate(runs.items(), 1):
        known = _finished(settings, name)
        if known is None:
            _logger.warning("run %d of %d: %s", number, len(runs), settings.out)
            fitted = train(settings)
            known = _best_validation(settings.out, fitted.best_step), fitted
            _record(settings, name, values, *known)
        else:
            _logger.warning("run %d of %d: %s is finished already", number, len(runs), settings.out)
        results.append(known)
    ranks = {
        number: (1 if higher else -1) * metrics[metric]
        for number, (metrics, _) in enumerate(results)
        if not math.isnan(metrics.get(metric, math.nan))
    }
    if not ranks:
        raise ConfigError(f"{metric} has no value in the validation of any run; choose another validation.best")
    best = max(ranks, key=lambda number: (ranks[number], -number))
    tried = tuple(
        Tried(values=values, metrics=metrics, best=number == best)
        for number, ((values, _), (metrics, _)) in enumerate(zip(runs.values(), results, strict=True))
    )
    folders = tuple(settings.out for _, settings in runs.values())
    fitted = results[best][1]
    return SeveralRuns(
        step=fitted.step,
        ended=fitted.ended,
        best_step=fitted.best_step,
        out=folders[best],
        metric=metric,
        tried=tried,
        folders=folders,
    )


def _best_validation(out: str, best_step: int | None) -> dict[str, float]:
    """Metrics of the validation of the checkpoint that became the run's model; the same on all ranks."""
    rank, world_size = world()
    found: list[Any] = [_read_validation(out, best_step) if rank == 0 else None]
    if world_size > 1:
        dist.broadcast_object_list(found, src=0)  # only the first rank's file is complete
    metrics: dict[str, float] = found[0]
    return metrics


def _read_validation(out: str, best_step: int | None) -> dict[str, float]:
    lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    validations = [one for one in lines if any(name.startswith(_PREFIX) for name in one)]
    chosen = [one for one in validations if one["step"] == best_step] or validations
    numbers = {name: value for name, value in chosen[-1].items() if isinstance(value, int | float)} if chosen else {}
    return {name.removeprefix(_PREFIX): value for name, value in numbers.items() if name.startswith(_PREFIX)}


def _results(settings: FinetuneRecipe) -> tuple[Path, dict[str, Any]]:
    path = Path(settings.out).parent / _RESULTS
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        values = {}
    return path, values if isinstance(values, dict) else {}


def _finished(settings: FinetuneRecipe, name: str) -> tuple[dict[str, float], Fitted] | None:
    """Metrics and result of a run that is finished with the same settings; None = it is to be trained."""
    _, values = _results(settings)
    folder = Path(settings.out)
    config = folder / "config.yaml"
    if not settings.resume or name not in values or not (folder / "model").is_dir() or not config.is_file():
        return None
    precision = decided_precision(settings.train.precision, settings, pick_device(settings.device))
    kernels = settings.train.kernels if settings.train.kernels != AUTO else recorded_kernels(settings) or AUTO
    now = to_plain(evolve(settings, train=evolve(settings.train, precision=precision, kernels=kernels)))
    before = read_yaml(config.read_text(), name=str(config))
    if not isinstance(before, dict) or any(one.how != "free" for one in changes(FinetuneRecipe, before, now)):
        return None  # resuming says what differs
    one = values[name]
    return one["metrics"], Fitted(step=one["step"], ended=one["ended"], best_step=one["best_step"])


def _record(
    settings: FinetuneRecipe, name: str, values: dict[str, Any], metrics: dict[str, float], fitted: Fitted
) -> None:
    if world()[0] > 0:
        return
    path, known = _results(settings)
    known[name] = {
        "values": values,
        "metrics": metrics,
        "step": fitted.step,
        "ended": fitted.ended,
        "best_step": fitted.best_step,
    }
    write_text(path, json.dumps(known, indent=1) + "\n")


def _at(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain[part]
    return plain


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
