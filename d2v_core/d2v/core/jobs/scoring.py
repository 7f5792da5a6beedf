"""Score a task on labelled batches, of this process or of all processes together."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from d2v.core.labels import Labels
from d2v.core.model import Batch
from d2v.core.task import Evaluation, Scorer, Task, TwoStepTask
from d2v.core.train.ranks import world


@torch.no_grad()
def scored(
    task: Task,
    module: nn.Module,
    batches: Iterable[Batch],
    *,
    labels: Labels,
    device: torch.device,
    over_ranks: bool = True,
) -> Evaluation:
    """Evaluate a module on labelled batches.

    Args:
        task: the task that the module was built for.
        module: in eval mode.
        batches: of this rank.
        labels: of the batches.
        device: device of the module.
        over_ranks: whether every rank calls this with its share of the batches; all ranks return the result of all
            batches together.

    Raises:
        ValueError: if there is nothing to score, or outputs and labels do not fit.
    """
    scorer = task.scorer(labels)
    for batch in batches:
        there = batch.to(device)
        scorer.update(task.outputs(module, there, labels=labels), there)
    return (merged(scorer) if over_ranks else scorer).compute()


@torch.no_grad()
def scored_by_each(
    tasks: Sequence[TwoStepTask],
    module: nn.Module,
    batches: Iterable[Batch],
    *,
    labels: Labels,
    device: torch.device,
) -> list[Evaluation]:
    """Evaluate a module with several searches, in one pass over the batches; see `scored`.

    Args:
        tasks: with different options of their search.
        module: in eval mode.
        batches: of this rank.
        labels: of the batches.
        device: device of the module.

    Raises:
        ValueError: if there is nothing to score, or outputs and labels do not fit.
    """
    scorers = [task.scorer(labels) for task in tasks]
    for batch in batches:
        there = batch.to(device)
        results = tasks[0].results(module, there)
        for task, scorer in zip(tasks, scorers, strict=True):
            scorer.update(task.decode(results, labels=labels), there)
    return [merged(scorer).compute() for scorer in scorers]


def merged(scorer: Scorer) -> Scorer:
    """The scorers of all ranks merged in rank order; the same result on each rank."""
    _, world_size = world()
    if world_size == 1:
        return scorer
    found: list[Any] = [None] * world_size
    dist.all_gather_object(found, scorer)
    first, *others = found
    first.merge_state(others)
    counted: Scorer = first
    return counted
