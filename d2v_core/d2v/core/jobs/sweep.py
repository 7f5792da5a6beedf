"""Compare values of a task's options on one split, with one pass of the model."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from attrs import frozen

from d2v.core.files import ConfigError, Stored
from d2v.core.jobs.fine_tuned import UseSettings, check_use, labels_of
from d2v.core.jobs.models import settings_for, stored_of, task_of, trained_values
from d2v.core.jobs.scoring import scored_by_each
from d2v.core.model import Batch
from d2v.core.recipes.several_values import alternatives, combinations
from d2v.core.scores.scores import aligned
from d2v.core.task import Evaluation, Task, TwoStepTask


@frozen(kw_only=True)
class Tried:
    """One combination of values.

    Args:
        values: by dotted key.
        metrics: of the split.
        best: whether it is the best combination.
    """

    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    best: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.values, **self.metrics, **({"best": True} if self.best else {})}


@frozen(kw_only=True)
class Sweep:
    """Combinations of values of a task's options.

    Args:
        values: of each combination, by dotted key.
        tasks: with these values.
    """

    values: tuple[dict[str, Any], ...]
    tasks: tuple[TwoStepTask, ...]

    def run(
        self, stored: Stored, batches: Iterable[Batch], *, device: torch.device
    ) -> tuple[Task, Evaluation, tuple[Tried, ...]]:
        """Measure all combinations; return task and evaluation of the best one, and the metrics of all.

        The first of equal combinations is the best.

        Raises:
            ValueError: as `scored`, or if the metric that selects the best one has no value.
        """
        labels, (first, *_) = labels_of(stored), self.tasks
        found = scored_by_each(self.tasks, stored.module, batches, labels=labels, device=device)
        sign = 1 if first.best in first.scorer(labels).lower_is_better else -1
        ranks = {i: sign * one.metrics()[first.best] for i, one in enumerate(found) if first.best in one.metrics()}
        if not ranks:
            raise ValueError(f"{first.best} has no value on this split, so no combination is the best")
        best = min(ranks, key=lambda number: ranks[number])
        tried = tuple(
            Tried(values=values, metrics=dict(one.metrics()), best=number == best)
            for number, (values, one) in enumerate(zip(self.values, found, strict=True))
        )
        return self.tasks[best], found[best], tried


def opened_for_sweep(overrides: Mapping[str, Any]) -> tuple[UseSettings, Stored, Sweep | None]:
    """Open a fine-tuned model; numbers of its task that are given as lists make a sweep.

    Returns:
        Settings with the first value of each list, the model, and the sweep; None = there are no lists.

    Raises:
        ConfigError: as `opened`, or if the options of this task cannot be compared.
        FileNotFoundError: as `opened`.
        DataError: as `opened`.
        MissingExtraError: as `opened`.
    """
    stored = stored_of(overrides)
    choices = alternatives(UseSettings, trained_values(UseSettings, stored), overrides, below="task")
    made = [settings_for(UseSettings, stored, {**overrides, **values}) for values in combinations(choices)]
    for one in made:
        check_use(one.task, task_of(stored))
        one.task.scorer(labels_of(stored))  # reports wrong files of the task before any data is read
    if not choices:
        return made[0], stored, None
    tasks = [one.task for one in made if isinstance(one.task, TwoStepTask)]
    if len(tasks) < len(made):
        raise ConfigError(f"{', '.join(choices)}: the options of this task cannot be compared; give one value of each")
    values = tuple({key: reduce(getattr, key.split("."), one) for key in choices} for one in made)
    return made[0], stored, Sweep(values=values, tasks=tuple(tasks))


def sweep_table(tried: Sequence[Tried]) -> str:
    """Values and metrics of each combination; the best one is marked.

    >>> print(sweep_table([Tried(values={"task.decoder.lm_weight": 2.0}, metrics={"wer": 12.345}, best=True)]))
    lm_weight    wer
            2  12.35  best
    """
    names = {key: key.rpartition(".")[2] for key in tried[0].values}
    metrics = list(dict.fromkeys(name for one in tried for name in one.metrics))
    rows = [[*names.values(), *metrics, ""]]
    for one in tried:
        numbers = [f"{value:g}" if isinstance(value, float) else str(value) for value in one.values.values()]
        found = [f"{one.metrics[name]:.2f}" if name in one.metrics else "-" for name in metrics]
        rows.append([*numbers, *found, "best" if one.best else ""])
    return "\n".join(aligned(rows, left=0))
