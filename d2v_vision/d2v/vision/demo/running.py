"""The quickstart from the first sample to the page: what is done in which order, and what is said meanwhile."""

import os
from pathlib import Path
from typing import Any

from attrs.validators import ge, optional

from d2v.core.plots import require_plotting
from d2v.core.validators import check, positive
from d2v.vision.demo.budget import require_time, seconds_per_update, updates_within
from d2v.vision.demo.stages import Stages

MINUTES = 5.0


def quickstart(
    out: str | os.PathLike[str],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Pretrain a small model on images that ship, measure what it has learned, and show it on a page.

    Raw pixels and the untrained network are measured first, and the network is fine-tuned on 100 labels from scratch.
    Then the number of updates is fixed, the model is pretrained without labels, and measured in the same way. Results
    are of images on which nothing was chosen.

    Args:
        out: folder to make, with `report.html`, the figures in `report.json`, and the run in `run`.
        minutes: for everything together, above 0; ten updates are timed and the rest follows. None = 5, unless `steps`
            is given.
        steps: updates of the pretraining in place of `minutes`, at least 1: the same number and seed give the same run
            again.
        seed: of weights, order, masks and draws of labels, at least 0.
        device: auto = cuda, mps or cpu, the first that there is.
        progress: whether to say how far it is, on standard error.

    Returns:
        What `report.json` holds: `probe.<pooling>.<probe>` with accuracies in percent of pixels, untrained and
        pretrained, `finetune_100`, `verdict` (a sentence), `seconds`, `steps`, `images_seen` and what else tells the
        run.

    Raises:
        FileExistsError: if `out` is there.
        OSError: if it cannot be made.
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
    from d2v.vision import modality  # its record names this function

    modality.require_extra()
    folder = Path(out)
    _make(folder)
    try:
        stages = Stages(folder, seed=seed, device=device, progress=progress)
        update = None
        if steps is None:
            update = seconds_per_update(stages.recipe(steps=1000), stages.device)
            require_time(minutes or MINUTES, update)
        stages.baselines()
    except BaseException:
        folder.rmdir()  # nothing has been written yet
        raise
    if update is not None:
        steps = max(updates_within(60 * (minutes or MINUTES) - stages.spent() - stages.to_come(), update), 1)
    assert steps is not None
    stages.pretrain(steps)
    return stages.report()


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
        raise FileExistsError(f"{folder} is there already; give another folder as out") from error
    except OSError as error:
        raise OSError(f"{folder} cannot be made: {error.strerror}; give another folder as out") from error
