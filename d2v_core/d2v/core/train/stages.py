"""Stages of an update, one function each, called by the loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from d2v.core.model import Batch, StepOutput
from d2v.core.teacher import EMATeacher
from d2v.core.train.debug import Recorder
from d2v.core.train.groups import set_rates, set_weight_decay
from d2v.core.train.run_folder import RunFolder
from d2v.core.train.signals import Interrupted, ValidationStopped
from d2v.core.train.skipping import mean_loss
from d2v.core.train.state import TrainingState
from d2v.core.train.validation import Validation

_CLIP_EPS = 1e-6


class Clock:
    """Measures the fraction of time spent waiting for data."""

    def __init__(self, now: TrainingState) -> None:
        self._now = now
        self._since = time.monotonic()
        self._waited = 0.0

    def wait(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch, and measure the waiting time."""
        self._now.doing = "reading data"
        begin = time.monotonic()
        batch = next(batches)
        self._now.doing = "computing"
        self._waited += time.monotonic() - begin
        return batch

    def report(self) -> dict[str, float]:
        """Return the fraction since the last report."""
        now = time.monotonic()
        fraction = self._waited / max(now - self._since, 1e-9)
        self._since, self._waited = now, 0.0
        return {"data_wait": fraction}


def set_scheduled(
    now: TrainingState, schedule: Callable[[int], float], weight_decay: Callable[[int], float] | None
) -> dict[str, float]:
    """Set the learning rates and the weight decay of the next update; return both, by the names used in the log."""
    set_rates(now.optimizer, schedule, now.step)
    if weight_decay is None:
        return {"lr": schedule(now.step)}
    set_weight_decay(now.optimizer, weight_decay, now.step)
    return {"lr": schedule(now.step), "weight_decay": weight_decay(now.step)}


def finish_gradients(now: TrainingState, count: int, clip: float) -> float | None:
    """Scale gradients by 1 / count and clip them; return their norm, or None after an overflow in fp16.

    Raises:
        ValueError: if the count is 0 or nothing has a gradient.
        NonFiniteError: if fp16 overflows at the smallest loss scale.
    """
    if count < 1:
        raise ValueError(f"update {now.step + 1} has sample_size {count}: its batches contain nothing to learn")
    factor = 1.0 if now.loss_scale is None else now.loss_scale.value
    gradients = now.strategy.gradients(now.parameters, 1 / (count * factor))
    if not gradients:
        raise ValueError(f"update {now.step + 1} gives no parameter a gradient; is everything frozen?")
    norm = now.strategy.norm(gradients)
    known = norm.item()
    if now.loss_scale is not None:
        if not math.isfinite(known):
            now.loss_scale.overflow(step=now.step)
            return None
        now.loss_scale.success()
    if clip and not known + _CLIP_EPS < clip:  # otherwise the factor is 1
        clip_gradients(gradients, norm, clip, half=now.loss_scale is not None)
    return known


def accepted(
    now: TrainingState, outputs: Sequence[StepOutput], count: int, norm: float, recorder: Recorder | None
) -> bool:
    """Return whether an update is to be applied; otherwise count it as skipped, and save its batches if asked to.

    Raises:
        NonFiniteError, LossSpikeError: if no more updates may be skipped.
    """
    rule = now.skipping
    loss = mean_loss(outputs, count) if rule.spike_ratio else None
    reason = rule.fault(loss=loss, norm=norm)
    if reason is None:
        return True
    saved = ""
    if recorder is not None:
        saved = recorder.save(now.step + 1, reason, norm, outputs, now.strategy.tensors(now.model))
    rule.skip(now.step + 1, reason, finite=loss is not None and math.isfinite(loss + norm), saved=saved)
    return False


def clip_gradients(gradients: list[Tensor], norm: Tensor, clip: float, *, half: bool) -> None:
    """Clip gradients to a maximum total norm, in place, with the published factors.

    min(1, clip / (norm + 1e-6)); in fp16 training clip / norm if the norm is above clip. The two differ for tiny
    gradients.

    Args:
        gradients: all gradients.
        norm: their total norm.
        clip: maximum norm.
        half: whether training is in fp16.

    >>> gradient = torch.tensor([3.0, 4.0])
    >>> clip_gradients([gradient], gradient.norm(), 0.5, half=True)
    >>> gradient
    tensor([0.3000, 0.4000])
    """
    # Clamp on the device: comparing the norm in Python would wait for the device.
    factor = (clip / (norm if half else norm + _CLIP_EPS)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)


def apply_update(now: TrainingState, outputs: Sequence[StepOutput], modalities: Sequence[str | None]) -> None:
    """Count an update; make the steps of optimiser and teacher, and add its metrics.

    Args:
        now: state of the training.
        outputs: of the micro-batches; none = the update is skipped, and only counted.
        modalities: of the micro-batches.
    """
    if outputs:
        now.optimizer.step()
    now.step += 1
    update_teacher = getattr(now.model, "update_teacher", None)
    if outputs and update_teacher is not None:
        update_teacher(now.step)
    for modality, output in zip(modalities, outputs, strict=True):
        found = {"loss": (output.loss_sum, output.sample_size), **output.metrics}
        now.meters.add(found, modality=modality)


def validate(now: TrainingState, rule: Validation | None) -> tuple[dict[str, float], bool]:
    """Run the validation if it is due; return its metrics, and whether it is the best so far."""
    if rule is None or not rule.due(now.step):
        return {}, False
    now.doing = "validating"
    now.model.eval()
    try:
        with torch.no_grad(), now.strategy.whole(now.model):
            metrics = dict(rule.run())
    finally:
        now.model.train()
    now.doing = "computing"
    return metrics, now.best.see(now.step, metrics, rule)


def complete(
    now: TrainingState,
    rule: Validation | None,
    outlets: Sequence[object],
    hooks: Sequence[object],
    run: RunFolder | None,
) -> bool:
    """Validate if it is due, and write the metrics of an update; return whether it is the best so far.

    Raises:
        Interrupted: at a signal during the validation. The checkpoint has the metrics up to it (`now.pending`), and the
            next start validates again before it goes on.
        CollapseError: from the monitors.
    """
    try:
        found, better = validate(now, rule)
    except ValidationStopped as stopped:
        now.save(run)
        raise Interrupted(stopped.signum, now.step) from None
    metrics, now.pending = {**(now.pending or {}), **found}, None
    if metrics:
        # Before the checkpoint, so that a run resumed from it has all lines up to it.
        call(outlets, "write", now.step, metrics)
        call(outlets, "log", now.step, metrics)
        call(hooks, "on_log", now.step, metrics)
        if now.monitors is not None:
            now.monitors.check(now.step)
    return better


def measured(
    now: TrainingState, outputs: Sequence[StepOutput], modalities: Sequence[str | None], rates: Mapping[str, float]
) -> dict[str, float]:
    """Return metrics to log: means since the last line, the monitors' metrics, and the rates of the update."""
    metrics = {**now.meters.report(), **rates}
    teacher = getattr(now.model, "teacher", None)
    if isinstance(teacher, EMATeacher):
        metrics["decay"] = teacher.schedule(now.step)
    if now.monitors is not None:
        metrics |= now.monitors.report(outputs, modalities)
    if now.skipping.limit:
        metrics["skipped"] = now.skipping.skipped
    return metrics


def call(objects: Iterable[object], name: str, *arguments: object) -> None:
    """Call a method of all objects that have it."""
    for one in objects:
        method = getattr(one, name, None)
        if method is not None:
            method(*arguments)
