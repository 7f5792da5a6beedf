"""Number of updates that fit into a time limit, from the time of 40 updates before the run."""

import math
import time

import torch

from d2v.core.jobs.running import train_by, training_batches
from d2v.core.recipes import PretrainRecipe

_MEASURED, _WARM_UP = 40, 5
_REST = 2400
"""Time of probes, fine-tuning and report in updates, about; only to refuse a limit that is too short."""
_MARGIN = 0.97  # for metrics, checkpoints and a CPU that slows down when it gets warm


def seconds_per_update(recipe: PretrainRecipe, device: torch.device) -> float:
    """Mean time of 40 updates of the recipe's model on its data; the trained weights are discarded.

    The mean includes the pauses that a shared machine makes; a median would promise too many updates.
    """
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
    return (ticks[-1] - ticks[_WARM_UP - 1]) / _MEASURED


def updates_within(seconds: float, update: float) -> int:
    """Number of updates that fit into a time, at least 0.

    Args:
        seconds: time for the updates.
        update: seconds of one update.

    >>> updates_within(100.0, 0.5)
    194
    """
    return max(int(seconds * _MARGIN / update), 0)


def require_time(minutes: float, update: float) -> None:
    """Refuse a time limit that leaves no time for an update.

    Args:
        minutes: time for everything.
        update: seconds of one update.

    Raises:
        ValueError: naming the minimum.

    >>> require_time(0.1, 0.1)
    Traceback (most recent call last):
    ValueError: 0.1 minutes are too few for one update: all other stages take about 4.0 minutes here; give at least 4.2
    """
    rest = _REST * update / 60
    if updates_within(60 * (minutes - rest), update) < 1:
        least = math.ceil(10 * (rest + (update / 60) / _MARGIN) + 1) / 10
        raise ValueError(
            f"{minutes:g} minutes are too few for one update: all other stages take about {rest:.1f} minutes here; "
            f"give at least {least:.1f}"
        )
