"""The training loop, short enough to read and to replace.

It needs a model that returns its loss as sum and count, and does not depend on modality or mask. All randomness is a
function of integers, so resuming means restoring them: an interrupted run ends with the same weights.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from attrs import frozen
from attrs.validators import ge
from torch import nn
from torch.optim import Optimizer

from d2v.core.data.dead_workers import dead_workers_named
from d2v.core.monitor import CollapseMonitor
from d2v.core.precision import Precision
from d2v.core.train.ahead import Ahead
from d2v.core.train.debug import Recorder
from d2v.core.train.freezing import Freeze
from d2v.core.train.heap import keep_heap
from d2v.core.train.heartbeat import Heartbeat
from d2v.core.train.loss_scale import LossScale
from d2v.core.train.monitoring import Monitors
from d2v.core.train.passes import Passes
from d2v.core.train.progress import Progress
from d2v.core.train.ranks import sum_over_ranks, world
from d2v.core.train.run_folder import RunFolder
from d2v.core.train.signals import Interrupted, StopRequest
from d2v.core.train.sinks import MetricSink
from d2v.core.train.skipping import Skipping
from d2v.core.train.source import BatchSource
from d2v.core.train.stages import (
    Clock,
    accepted,
    apply_update,
    call,
    complete,
    finish_gradients,
    measured,
    set_scheduled,
)
from d2v.core.train.state import TrainingState
from d2v.core.train.strategies import Strategy, StrategyName, strategy_by_name
from d2v.core.train.validation import Validation
from d2v.core.validators import check


@frozen(kw_only=True)
class Fitted:
    """Result of a training.

    Args:
        step: number of finished updates.
        ended: "max_steps", or "patience" for an early stop.
        best_step: number of updates at the best validation; None = no best checkpoint was selected.
    """

    step: int
    ended: Literal["max_steps", "patience"]
    best_step: int | None


@dead_workers_named()
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
    strategy: Strategy | StrategyName = "auto",
    run: RunFolder | None = None,
    accept_data: bool = False,
    checkpoint_every: int = 1000,
    log_every: int = 50,
    sinks: Sequence[MetricSink] = (),
    monitor: CollapseMonitor | None = None,
    validation: Validation | None = None,
    freeze: Freeze | None = None,
    skipping: Skipping | None = None,
    timeout: float | None = None,
    hooks: Sequence[object] = (),
    progress: Progress | None = None,
) -> Fitted:
    """Minimise sum(loss_sum) / sum(sample_size), both over the micro-batches and ranks of an update.

    An update: zero_grad, forward and backward of the micro-batches, scaling by 1 / count, clipping, optimiser step,
    teacher update, hooks, validation, metrics, checkpoint. Torch's global generators of the model's device and of the
    CPU are re-seeded in every forward pass.

    Args:
        model: `model(batch, update=n)` returns a `StepOutput`; its `update_teacher(n)`, if any, is called after the
            optimiser step. Its `prepared(batch, update=n)`, if any, is called before, with the batch on the CPU. Not
            wrapped in DDP, which is the work of `strategy`.
        data: batches of this rank.
        optimizer: optimiser of the model's parameters.
        schedule: learning rate of the update after n finished ones; see `set_rates`.
        max_steps: total number of updates.
        accumulate: micro-batches per update.
        clip: maximum total norm of the gradients; 0 = no clipping.
        weight_decay: weight decay of the update after n finished ones, see `set_weight_decay`; None = that of the
            groups.
        precision: precision of the forward pass; the type of the weights does not change.
        loss_scale: loss scale for fp16; None = as published.
        seed: seed of dropout.
        strategy: how the ranks share the work, or its name (`strategy_by_name`). The strategy `Sharded` must have
            sharded the model before the optimiser is made.
        run: run folder to save checkpoints in and to resume from; None = no checkpoints.
        accept_data: whether to resume although the samples differ from those of the checkpoint (`Batches.identity`);
            a new epoch begins then.
        checkpoint_every: updates between checkpoints; a checkpoint is also saved at the end and at a signal.
        log_every: updates between lines of metrics.
        sinks: receive the metrics.
        monitor: monitor of the logged updates; each modality of a mixture has a copy of it.
        validation: validation on held-out data.
        freeze: parameters that are frozen at first.
        skipping: updates that are not applied; None = the first whose loss or gradient is not finite ends the training.
        timeout: seconds that a rank waits for the others in torch.distributed; None = those of the process group.
        hooks: objects whose `on_step_end(step)` and `on_log(step, metrics)` are called, if they have them. The output
            of their `state_dict()` is saved in checkpoints, under their `name` or class.
        progress: display of the progress.

    Raises:
        Interrupted: at Ctrl-C or SIGTERM, after the update is finished and saved. A validation that it interrupts is
            repeated by the next start.
        NonFiniteError, LossSpikeError: if an update is refused that `skipping` does not skip; it is not applied, and
            checkpoints stay intact.
        DeadWorkerError: if a process that reads data died.
        CollapseError: from the monitor.
        RankError: if another rank does not come in time, or ends.
        RunFolderError: if a file cannot be written, or hooks or samples are not those of the checkpoint; checkpoints
            stay intact.
        TypeError: if the state of a hook cannot be saved.
        ValueError: if a number is out of range, nothing is trained, or an update has a count of 0.

    >>> import torch
    >>> from torch import nn
    >>> from d2v.core.model import Batch, StepOutput
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
    strategy = strategy_by_name(strategy) if isinstance(strategy, str) else strategy
    device = next(model.parameters()).device
    if precision == "fp16":
        loss_scale = loss_scale or LossScale.published(workers=workers, accumulate=accumulate)
    else:
        loss_scale = None
    monitors = None if monitor is None else Monitors(monitor)
    now = TrainingState(
        model=model,
        data=data,
        optimizer=optimizer,
        strategy=strategy,
        accumulate=accumulate,
        loss_scale=loss_scale,
        monitors=monitors,
        hooks=hooks,
        skipping=skipping or Skipping(),
    )
    recorder = Recorder(run=run, seed=seed, precision=precision, data=data) if now.skipping.debug and run else None
    now.restore(run, accept_data=accept_data)
    outlets: list[Any] = [*(sinks if rank == 0 else ()), *([progress] if progress and rank == 0 else [])]
    for outlet in outlets:
        outlet.start(now.step if now.pending is None else now.step - 1)
    clock = Clock(now)
    now.ahead = ahead = Ahead(data, device, prepare=getattr(model, "prepared", None), next_of=clock.wait)
    if freeze is not None:
        freeze.apply(freeze.updates)  # DDP leaves out what is frozen when it is made
    passes = Passes(
        step=strategy.wrap(model), batches=ahead, precision=precision, device=device, seed=seed, recorder=recorder
    )
    model.train()
    keep_heap()
    try:
        with StopRequest() as stop, Heartbeat(now, timeout=timeout):
            if now.pending is not None:  # a signal interrupted its validation
                complete(now, validation, outlets, hooks, run)
            while now.step < max_steps and not now.best.exhausted(validation):
                if freeze is not None:
                    freeze.apply(now.step)
                rates = set_scheduled(now, schedule, weight_decay)
                optimizer.zero_grad()
                is_logged = now.step + 1 == max_steps or (now.step + 1) % log_every == 0
                outputs, modalities = passes.run(now, max_steps=max_steps, whole=is_logged)
                count, stopping = sum_over_ranks(
                    [sum(output.sample_size for output in outputs), int(stop.signum is not None)], device
                )
                norm = finish_gradients(now, count, clip)
                if norm is None:
                    continue  # fp16 overflow: the update is repeated with other batches
                if not accepted(now, outputs, count, norm, recorder):
                    outputs, modalities = [], []
                apply_update(now, outputs, modalities)
                call(hooks, "on_step_end", now.step)
                call(outlets, "advance", now.step)
                now.pending = {}
                if is_logged:
                    now.pending = {**measured(now, outputs, modalities, rates), **clock.report()}
                better = complete(now, validation, outlets, hooks, run)
                if better or stopping or now.step % checkpoint_every == 0:
                    now.save(run)
                if stopping:
                    raise Interrupted(stop.signum, now.step)
            now.save(run)
            if run is not None and rank == 0:
                run.finish(now.step if now.best.step is None else now.best.step)
    finally:
        call(outlets, "close")
        ahead.close()
    ended: Literal["max_steps", "patience"] = "max_steps" if now.step >= max_steps else "patience"
    return Fitted(step=now.step, ended=ended, best_step=now.best.step)
