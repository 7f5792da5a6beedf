"""Stages of an update that the loop calls by name, one function each."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from d2v.core.model import Batch, StepOutput
from d2v.core.teacher import EMATeacher
from d2v.core.train.gradients import scale_gradients
from d2v.core.train.groups import set_rates, set_weight_decay
from d2v.core.train.loss_scale import NonFiniteError
from d2v.core.train.state import TrainingState
from d2v.core.train.validation import Validation


class Clock:
    """How fast updates come, and what fraction of the time is spent waiting for data."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._waited = 0.0

    def wait(self, batches: Iterator[Batch]) -> Batch:
        """The next batch."""
        begin = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - begin
        return batch

    def report(self) -> dict[str, float]:
        """The fraction since the last report."""
        now = time.monotonic()
        fraction = self._waited / max(now - self._since, 1e-9)
        self._since, self._waited = now, 0.0
        return {"data_wait": fraction}


def set_scheduled(
    now: TrainingState, schedule: Callable[[int], float], weight_decay: Callable[[int], float] | None
) -> dict[str, float]:
    """Set the rates and the weight decay of the next update; gives both, by the names that they are logged under."""
    set_rates(now.optimizer, schedule, now.step)
    if weight_decay is None:
        return {"lr": schedule(now.step)}
    set_weight_decay(now.optimizer, weight_decay, now.step)
    return {"lr": schedule(now.step), "weight_decay": weight_decay(now.step)}


def finish_gradients(now: TrainingState, count: int, clip: float) -> bool:
    """Scale by 1 / count and clip; False = an overflow in fp16, whose update is skipped.

    Raises:
        ValueError: if the count is 0 or nothing has a gradient.
        NonFiniteError: if a gradient is not finite.
    """
    if count < 1:
        raise ValueError(f"update {now.step + 1} has sample_size {count}: its batches hold nothing to learn")
    factor = 1.0 if now.loss_scale is None else now.loss_scale.value
    gradients = scale_gradients(now.model.parameters(), 1 / (count * factor))
    if not gradients:
        raise ValueError(f"update {now.step + 1} gives no parameter a gradient; is everything frozen?")
    norm = get_total_norm(gradients)
    if not math.isfinite(norm.item()):
        if now.loss_scale is not None:
            now.loss_scale.overflow(step=now.step)
            return False
        raise NonFiniteError(
            f"loss or gradient of update {now.step + 1} is not finite (gradient norm {norm.item()}); the weights and "
            "checkpoints are of earlier updates; try a lower learning rate, gradient clipping or precision=fp32"
        )
    if now.loss_scale is not None:
        now.loss_scale.success()
    if clip:
        clip_gradients(gradients, norm, clip, half=now.loss_scale is not None)
    return True


def clip_gradients(gradients: list[Tensor], norm: Tensor, clip: float, *, half: bool) -> None:
    """Bring gradients of a total norm down to the largest that is allowed, in place, by the published factors.

    min(1, clip / (norm + 1e-6)); in fp16 training clip / norm where the norm is above clip. They differ where gradients
    are tiny.

    Args:
        gradients: all of them.
        norm: of all together.
        clip: largest norm.
        half: whether the training is in fp16.

    >>> gradient = torch.tensor([3.0, 4.0])
    >>> clip_gradients([gradient], gradient.norm(), 0.5, half=True)
    >>> gradient
    tensor([0.3000, 0.4000])
    """
    # Clamped on the device: asking whether the norm is above would wait for it.
    factor = (clip / (norm if half else norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)


def kept(output: StepOutput, *, whole: bool) -> StepOutput:
    """What is needed of an output after its backward pass; `whole`: predictions and targets too."""
    return StepOutput(
        loss_sum=output.loss_sum.detach(),
        sample_size=output.sample_size,
        metrics=output.metrics,
        predictions=output.predictions if whole else None,
        targets=output.targets if whole else None,
        mask=output.mask if whole else None,
    )


def validate(now: TrainingState, rule: Validation | None) -> tuple[dict[str, float], bool]:
    """Metrics of the validation, if one is due, and whether it is the best so far."""
    if rule is None or not rule.due(now.step):
        return {}, False
    now.model.eval()
    with torch.no_grad():
        metrics = dict(rule.run())
    now.model.train()
    return metrics, now.best.see(now.step, metrics, rule)


def measured(
    now: TrainingState, outputs: Sequence[StepOutput], modalities: Sequence[str | None], rates: Mapping[str, float]
) -> dict[str, float]:
    """Means since the last line, what the monitors see in this update, and the rates of the update."""
    metrics = {**now.meters.report(), **rates}
    teacher = getattr(now.model, "teacher", None)
    if isinstance(teacher, EMATeacher):
        metrics["decay"] = teacher.schedule(now.step)
    if now.monitors is not None:
        metrics |= now.monitors.report(outputs, modalities)
    return metrics


def call(objects: Iterable[object], name: str, *arguments: object) -> None:
    """Call the method of those objects that have it."""
    for one in objects:
        method = getattr(one, name, None)
        if method is not None:
            method(*arguments)
