"""The training loop: short enough to read in one sitting, and to replace.

It knows a model that gives a loss as sum and count, and neither modality nor mask. All that is random is a function of
integers, so that resuming is setting them: after an interruption at any moment the weights end up the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from attrs import frozen
from attrs.validators import ge
from torch import nn
from torch.optim import Optimizer

from d2v.core.model import StepOutput
from d2v.core.monitor import CollapseMonitor
from d2v.core.precision import Precision, autocast
from d2v.core.train.freezing import Freeze
from d2v.core.train.gradients import dropout_seed, sum_over_ranks, world
from d2v.core.train.loss_scale import LossScale
from d2v.core.train.monitoring import Monitors
from d2v.core.train.progress import Progress
from d2v.core.train.run_folder import RunFolder
from d2v.core.train.signals import Interrupted, StopRequest
from d2v.core.train.sinks import MetricSink
from d2v.core.train.source import BatchSource
from d2v.core.train.stages import Clock, call, finish_gradients, kept, measured, set_scheduled, validate
from d2v.core.train.state import TrainingState
from d2v.core.train.validation import Validation
from d2v.core.validators import check


@frozen(kw_only=True)
class Fitted:
    """How a training ended.

    Args:
        step: finished updates.
        ended: "max_steps", or "patience" for an early stop.
        best_step: of the best validation, if one was asked for.
    """

    step: int
    ended: Literal["max_steps", "patience"]
    best_step: int | None


def fit(
    model: nn.Module,
    data: BatchSource,
    *,
    optimizer: Optimizer,
    schedule: Callable[[int], float],
    max_steps: int,
    accumulate: int = 1,
    clip: float = 0.0,
    weight_decay: Callable[[int], float] | None = None,
    precision: Precision = "fp32",
    loss_scale: LossScale | None = None,
    seed: int = 0,
    run: RunFolder | None = None,
    accept_data: bool = False,
    checkpoint_every: int = 1000,
    log_every: int = 50,
    sinks: Sequence[MetricSink] = (),
    monitor: CollapseMonitor | None = None,
    validation: Validation | None = None,
    freeze: Freeze | None = None,
    hooks: Sequence[object] = (),
    progress: Progress | None = None,
) -> Fitted:
    """Minimise sum(loss_sum) / sum(sample_size), both over the micro-batches and ranks of an update.

    An update: zero_grad, micro-batches forward and backward, scaling by 1 / count, clipping, optimiser step, teacher
    update, hooks, validation, metrics, checkpoint. The global generators of torch are seeded anew in every pass.

    Args:
        model: `model(batch, update=n)` gives a `StepOutput`; its `update_teacher(n)`, if any, follows the step. On the
            same device on all ranks, unwrapped: gradients are summed over ranks here.
        data: of this rank.
        optimizer: of the model's parameters.
        schedule: rate of the update after n finished ones; see `set_rates`.
        max_steps: finished updates to reach.
        accumulate: micro-batches in an update.
        clip: largest norm of all gradients together; 0 = any.
        weight_decay: of the update after n finished ones, see `set_weight_decay`; None = as the groups have it.
        precision: of the forward pass; the weights stay as they are.
        loss_scale: for fp16; None = as published.
        seed: of dropout.
        run: where checkpoints are kept and where to go on from; None = nowhere.
        accept_data: whether to go on there although the samples are others than at the checkpoint (`Batches.identity`);
            a new epoch begins then.
        checkpoint_every: updates between checkpoints; the last one and one at a signal come on top.
        log_every: updates between lines of metrics.
        sinks: take the metrics.
        monitor: sees the updates that are logged; each modality of a mixture has a copy of it.
        validation: on held-out data.
        freeze: parts that do not train at first.
        hooks: objects whose `on_step_end(step)` and `on_log(step, metrics)` are called, where they have them. What
            their `state_dict()` gives is kept in checkpoints, under `name` or their class.
        progress: shows how far it is.

    Raises:
        Interrupted: at Ctrl-C or SIGTERM, after the update is finished and saved.
        NonFiniteError: if loss or gradient is not finite; the step is not made, checkpoints stay.
        CollapseError: from the monitor.
        RunFolderError: if something cannot be written, or hooks or samples are not those of the checkpoint;
            checkpoints stay.
        TypeError: if the state of a hook cannot be saved.
        ValueError: if a number is out of its range, nothing is trained, or an update counts nothing.

    >>> from d2v.core.model import Batch
    >>> from d2v.core.train import MemorySource
    >>> class Mean(nn.Linear):
    ...     def forward(self, batch, *, update):
    ...         return StepOutput(loss_sum=(super().forward(batch.source) ** 2).sum(), sample_size=batch.size)
    >>> model = Mean(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters())
    >>> data = MemorySource([Batch(source=torch.ones(4, 2))])
    >>> fit(model, data, optimizer=optimizer, schedule=lambda n: 0.1, max_steps=3).step
    3
    """
    check(ge(1), accumulate=accumulate, checkpoint_every=checkpoint_every, log_every=log_every)
    rank, workers = world()
    device = next(model.parameters()).device
    if precision == "fp16":
        loss_scale = loss_scale or LossScale.published(workers=workers, accumulate=accumulate)
    else:
        loss_scale = None
    monitors = None if monitor is None else Monitors(monitor)
    now = TrainingState(
        model=model, data=data, optimizer=optimizer, loss_scale=loss_scale, monitors=monitors, hooks=hooks
    )
    now.restore(run, accept_data=accept_data)
    outlets: list[Any] = [*(sinks if rank == 0 else ()), *([progress] if progress and rank == 0 else [])]
    for outlet in outlets:
        outlet.start(now.step)
    clock, batches = Clock(), iter(data)
    model.train()
    try:
        with StopRequest() as stop:
            while now.step < max_steps and not now.best.exhausted(validation):
                if freeze is not None:
                    freeze.apply(now.step)
                rates = set_scheduled(now, schedule, weight_decay)
                optimizer.zero_grad()
                outputs, modalities = [], []
                for micro in range(accumulate):
                    batch = clock.wait(batches).to(device, non_blocking=True)
                    torch.manual_seed(dropout_seed(seed, now.step, rank, micro))
                    with autocast(precision, device):
                        output: StepOutput = model(batch, update=now.step)
                    torch.autograd.backward(output.loss_sum * (loss_scale.value if loss_scale else 1.0))
                    modalities.append(batch.modality)
                    outputs.append(kept(output, whole=now.step + 1 == max_steps or (now.step + 1) % log_every == 0))
                count, stopping = sum_over_ranks(
                    [sum(output.sample_size for output in outputs), int(stop.signum is not None)], device
                )
                if not finish_gradients(now, count, clip):
                    continue  # an overflow in fp16: skipped and not counted
                optimizer.step()
                now.step += 1
                update_teacher = getattr(model, "update_teacher", None)
                if update_teacher is not None:
                    update_teacher(now.step)
                for modality, output in zip(modalities, outputs, strict=True):
                    found = {"loss": (output.loss_sum, output.sample_size), **output.metrics}
                    now.meters.add(found, modality=modality)
                call(hooks, "on_step_end", now.step)
                call(outlets, "advance", now.step)
                metrics, better = validate(now, validation)
                if now.step % log_every == 0 or now.step == max_steps:
                    metrics = {**measured(now, outputs, modalities, rates), **clock.report(), **metrics}
                if metrics:
                    # Before the checkpoint: whoever goes on from that finds every line up to it.
                    call(outlets, "write", now.step, metrics)
                    call(outlets, "log", now.step, metrics)
                    call(hooks, "on_log", now.step, metrics)
                    if monitors is not None:
                        monitors.check(now.step)
                if better or stopping or now.step % checkpoint_every == 0:
                    now.save(run)
                if stopping:
                    raise Interrupted(stop.signum, now.step)
            now.save(run)
            if run is not None and rank == 0:
                run.finish(now.step if now.best.step is None else now.best.step)
    finally:
        call(outlets, "close")
    ended: Literal["max_steps", "patience"] = "max_steps" if now.step >= max_steps else "patience"
    return Fitted(step=now.step, ended=ended, best_step=now.best.step)
