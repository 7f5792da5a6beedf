"""The quickstart command: check the arguments, and run its stages in order."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from attrs.validators import ge, optional

from d2v.core.plots import require_plotting
from d2v.core.train.busy import fewer_threads, others_running, usable_processors
from d2v.core.validators import check, positive
from d2v.vision.demo.budget import require_time, seconds_per_update, updates_within
from d2v.vision.demo.stages import Stages

MINUTES = 5.0
LEAST = 1000  # updates without a time limit of the user, however slow the machine is; fewer teach little


def quickstart(
    out: str | os.PathLike[str],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Pretrain a small model on built-in images, evaluate its features, and write a page with the results.

    First the raw pixels and the untrained network are evaluated, and the network is fine-tuned on 100 labels from
    scratch. Then the number of updates is fixed, and the model is pretrained without labels and evaluated in the same
    way. All results are on images that no setting was chosen on. Unless `steps` is given, only as many threads are used
    as other programs leave free.

    Args:
        out: folder to create, with `report.html`, the results in `report.json`, and the run in `run`.
        minutes: time for everything, above 0; the number of updates follows from the time of 40 updates. None = 5,
            but at least 1,000 updates, unless `steps` is given.
        steps: updates of the pretraining instead of `minutes`, at least 1; the same number and seed repeat a run.
        seed: seed of weights, order, masks and label draws, at least 0.
        device: auto = the first available of cuda, mps and cpu.
        progress: whether to show the progress on standard error.

    Returns:
        The content of `report.json`: `probe.<pooling>.<probe>` with accuracies in percent of pixels, untrained and
        pretrained, `finetune_100`, `verdict` (a sentence), `seconds`, `steps`, `images_seen` and more about the run.

    Raises:
        FileExistsError: if `out` exists.
        OSError: if it cannot be created.
        MissingExtraError: if the packages of the extra `vision` or `plot` are missing.
        ConfigError: if there is no such device.
        ValueError: if a number is out of its range, both `minutes` and `steps` are given, or the minutes are too few.

    >>> quickstart("out", minutes=5)["probe"]["grid"]["knn"]  # doctest: +SKIP
    {'pixels': 82.2, 'untrained': 79.05, 'pretrained': 84.9}
    >>> quickstart("out", steps=0)
    Traceback (most recent call last):
    ValueError: 'steps' must be >= 1: 0
    """
    _check(minutes, steps, seed)
    require_plotting()
    from d2v.vision import modality  # here, since d2v.vision imports this module

    modality.require_extra()
    folder = Path(out)
    _make(folder)
    with _free_threads(progress) if steps is None else nullcontext():
        return _run(folder, minutes=minutes, steps=steps, seed=seed, device=device, progress=progress)


def _run(
    folder: Path, *, minutes: float | None, steps: int | None, seed: int, device: str, progress: bool
) -> dict[str, Any]:
    try:
        stages = Stages(folder, seed=seed, device=device, progress=progress)
        update = None
        if steps is None:
            update = seconds_per_update(stages.recipe(steps=1000), stages.device)
            if minutes is not None:
                require_time(minutes, update)
        stages.baselines()
    except BaseException:
        folder.rmdir()  # nothing has been written yet
        raise
    if update is not None:
        fitting = updates_within(60 * (minutes or MINUTES) - stages.spent() - stages.to_come(), update)
        steps = max(fitting, LEAST if minutes is None else 1)
    assert steps is not None
    stages.pretrain(steps)
    return stages.report()


@contextmanager
def _free_threads(progress: bool) -> Iterator[None]:
    """Use fewer threads inside the block if other programs are running: threads that wait for a core are slow."""
    threads = torch.get_num_threads()
    free = fewer_threads(threads, others=others_running(), processors=usable_processors())
    if free is not None:
        torch.set_num_threads(free)
        if progress:
            print(f"other programs are running: {free} of {threads} threads are used", file=sys.stderr)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(minutes: float | None, steps: int | None, seed: int) -> None:
    if minutes is not None and steps is not None:
        raise ValueError("give minutes or steps, not both")
    check(optional(positive), minutes=minutes)
    check(optional(ge(1)), steps=steps)
    check(ge(0), seed=seed)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise FileExistsError(f"{folder} already exists; choose another out") from error
    except OSError as error:
        raise OSError(f"{folder} cannot be created: {error.strerror}; choose another out") from error
