"""How many updates fit into a time: ten are measured, and the schedule is fixed before the first that counts."""

import math
import statistics
import time
from itertools import pairwise

import torch

from d2v.core.jobs.running import train_by, training_batches
from d2v.core.recipes import PretrainRecipe

_MEASURED, _WARM_UP = 10, 5
_REST = 2400
"""Updates that take as long as all else does, probes, fine-tuning and report; only for refusing in time."""
_MARGIN = 0.97  # metrics and checkpoints, and a processor that slows down when it gets warm


def seconds_per_update(recipe: PretrainRecipe, device: torch.device) -> float:
    """Median time of ten updates of the recipe's model on its data; nothing of them is kept."""
    ticks: list[float] = []

    class Ticks:
        def on_step_end(self, step: int) -> None:
            del step
            ticks.append(time.perf_counter())

    torch.manual_seed(recipe.seed)
    model = recipe.model_config().build().to(device)
    optimizer = recipe.optim.build(model)
    updates = _WARM_UP + _MEASURED
    train_by(recipe, model, training_batches(recipe), optimizer, max_steps=updates, hooks=[Ticks()])
    return statistics.median(after - before for before, after in pairwise(ticks[_WARM_UP - 1 :]))


def updates_within(seconds: float, update: float) -> int:
    """Whole updates that fit, at least 0.

    Args:
        seconds: for them alone.
        update: seconds of one.

    >>> updates_within(100.0, 0.5)
    194
    """
    return max(int(seconds * _MARGIN / update), 0)


def require_time(minutes: float, update: float) -> None:
    """Refuse a time in which nothing would be learned.

    Args:
        minutes: for everything.
        update: seconds of one update.

    Raises:
        ValueError: naming the least.

    >>> require_time(0.1, 0.1)
    Traceback (most recent call last):
    ValueError: 0.1 minutes are too few for a single update: all else takes about 4.0 minutes here; give at least 4.2
    """
    rest = _REST * update / 60
    if updates_within(60 * (minutes - rest), update) < 1:
        least = math.ceil(10 * (rest + (update / 60) / _MARGIN) + 1) / 10
        raise ValueError(
            f"{minutes:g} minutes are too few for a single update: all else takes about {rest:.1f} minutes here; "
            f"give at least {least:.1f}"
        )
