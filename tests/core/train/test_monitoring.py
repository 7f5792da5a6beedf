"""A monitor for each modality."""

import pytest
import torch
from building import random_mask
from torch import Tensor

from d2v.core.model import StepOutput
from d2v.core.monitor import CollapseError, CollapseMonitor
from d2v.core.train.monitoring import Monitors


def output(targets: Tensor) -> StepOutput:
    """Targets `b t d` as a step gives them, every position hidden."""
    mask = random_mask(len(targets), 1, targets.shape[1], targets.shape[1])
    rows = targets.flatten(0, 1)
    return StepOutput(
        loss_sum=torch.zeros(()), sample_size=len(rows), predictions=torch.randn_like(rows), targets=rows, mask=mask
    )


def healthy() -> StepOutput:
    return output(torch.randn(16, 6, 12))


def collapsed() -> StepOutput:
    return output(torch.randn(1, 6, 12).expand(16, 6, 12))


def test_each_modality_is_judged_alone() -> None:
    monitors = Monitors(CollapseMonitor())
    first = monitors.report([healthy(), healthy()], ["images", "sounds"])
    assert {name.partition("/")[0] for name in first} == {"images", "sounds"}
    monitors.check(1)
    second = monitors.report([healthy(), collapsed()], ["images", "sounds"])
    assert second["images/position_fraction"] < 0.2 < second["sounds/position_fraction"]
    with pytest.raises(CollapseError):
        monitors.check(2)


def test_a_batch_without_a_modality_reports_as_the_monitor_does_alone() -> None:
    monitor, step = CollapseMonitor(), healthy()
    alone = CollapseMonitor()
    alone.update(step.predictions, step.targets, step.mask)
    assert Monitors(monitor).report([step], [None]) == alone.report()


def test_first_reports_outlive_the_process() -> None:
    monitors = Monitors(CollapseMonitor())
    monitors.report([healthy(), healthy()], [None, "sounds"])
    others = Monitors(CollapseMonitor())
    others.load_state_dict(monitors.state_dict())
    others.report([collapsed()], ["sounds"])
    with pytest.raises(CollapseError):
        others.check(1)
