"""State of a training, saved in checkpoints and restored from them."""

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from torch import nn
from torch.optim import Optimizer

from d2v.core.train.ahead import Ahead
from d2v.core.train.heartbeat import Doing
from d2v.core.train.hooks import restore, states
from d2v.core.train.loss_scale import LossScale
from d2v.core.train.meters import Meters
from d2v.core.train.monitoring import Monitors
from d2v.core.train.ranks import sum_over_ranks, world
from d2v.core.train.resuming import changed_data, changed_machine, continued, machine_of, restart, stored_identity
from d2v.core.train.run_config import RunFolderError
from d2v.core.train.run_folder import RunFolder
from d2v.core.train.skipping import Skipping
from d2v.core.train.source import BatchSource
from d2v.core.train.strategies import Strategy
from d2v.core.train.validation import Best


@define(kw_only=True, eq=False)
class TrainingState:
    """Model, optimiser, data and counters of a training.

    Args:
        model: model to train.
        data: batches of this rank; the position is the same on all ranks.
        optimizer: optimiser of the model.
        strategy: how the ranks share the work.
        accumulate: micro-batches of an update on each rank.
        loss_scale: loss scale for fp16.
        monitors: monitors of the model's targets.
        hooks: hooks, with or without a state.
        ahead: batches of the data, read one ahead; None = batches come from `data` itself.
        skipping: rule of updates that are not applied.
        step: number of finished updates.
        meters: metrics since the last line.
        best: best validation so far.
        pending: metrics of the update whose validation is not finished; None = there is no such update.
        doing: what this rank is doing, which `Heartbeat` tells the other ranks.
        parameters: parameters of the model, frozen ones too; to go through its modules takes longer than their norm.
    """

    model: nn.Module
    data: BatchSource
    optimizer: Optimizer
    strategy: Strategy = field(factory=Strategy)
    accumulate: int = 1
    loss_scale: LossScale | None = None
    monitors: Monitors | None = None
    hooks: Sequence[object] = ()
    ahead: Ahead | None = None
    skipping: Skipping = field(factory=Skipping)
    step: int = 0
    meters: Meters = field(factory=Meters)
    best: Best = field(factory=Best)
    pending: dict[str, float] | None = None
    doing: Doing = "computing"
    parameters: tuple[nn.Parameter, ...] = field(init=False)

    @parameters.default
    def _all_parameters(self) -> tuple[nn.Parameter, ...]:
        return tuple(self.model.parameters())

    def save(self, run: RunFolder | None) -> None:
        """Write a checkpoint: the ranks gather it together, and the first one writes it."""
        if run is None:
            return
        self.doing = "saving"
        tensors, optimizer = self.strategy.tensors(self.model), self.strategy.optimizer_state(self.optimizer)
        if world()[0] > 0:
            self.doing = "computing"  # these ranks go on, and wait for the first one in the next update
            return
        state: dict[str, Any] = {
            "step": self.step,
            "data": (self.ahead or self.data).state_dict(),
            "optimizer": optimizer,
            "hooks": states(self.hooks),
            "identity": stored_identity(self.data),
            "machine": machine_of(self.model),
            "accumulate": self.accumulate,
            "pending": self.pending,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }
        run.save(self.step, tensors, state, best=self.best.step)
        self.doing = "computing"

    def restore(self, run: RunFolder | None, *, accept_data: bool = False) -> None:
        """Resume from the newest checkpoint, if there is one.

        Args:
            run: run folder to resume from; None = no run folder.
            accept_data: whether to resume with other samples than those of the checkpoint, with a new epoch.

        Raises:
            RunFolderError: if the samples differ and `accept_data` is False, or an update would have another number
                of batches.
            DataError: if the data cannot be continued by another number of processes.
        """
        if run is None:
            return
        states(self.hooks)  # raise errors about unsupported states now, not at the first checkpoint
        # Other ranks must wait until the first one has opened and cleaned the folder.
        sum_over_ranks([0], next(self.model.parameters()).device)
        found = run.load()
        if found is None:
            run.settle(0)
            return
        tensors, state = found
        then = state["machine"]
        self._check_batches(run, then["processes"], state["accumulate"])
        try:
            self.strategy.load_tensors(self.model, tensors)
        except RuntimeError as error:
            raise RunFolderError(f"{run.path} has checkpoints of another model: {error}") from error
        self.step, self.pending = state["step"], state.get("pending")
        changes = list(changed_machine(then, machine_of(self.model)))
        other = changed_data(state.get("identity"), self.data)
        if other is None:
            self.data.load_state_dict(continued(self.data, state["data"], before=then["processes"]))
        elif accept_data:
            restart(self.data, state["data"])
            changes.append(f"{other}; a new epoch begins")
        else:
            raise RunFolderError(
                f"{run.path}: {other}; restore the samples of the run, or resume with these by accept=data, or give "
                "another out"
            )
        self.strategy.load_optimizer(self.optimizer, state["optimizer"])
        restore(self.hooks, state["hooks"])
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])
        run.settle(self.step, changes)

    def _check_batches(self, run: RunFolder, processes: int, accumulate: int) -> None:
        then, workers = processes * accumulate, world()[1]
        if then == workers * self.accumulate:
            return
        fix = f"set train.accumulate={then // workers}" if then % workers == 0 else f"use {processes} process(es)"
        raise RunFolderError(
            f"{run.path}: an update had {then} batches ({processes} process(es) x train.accumulate={accumulate}) and "
            f"would have {workers * self.accumulate}; {fix}"
        )

    def _parts(self) -> dict[str, Any]:
        parts = {
            "loss_scale": self.loss_scale,
            "monitor": self.monitors,
            "meters": self.meters,
            "best": self.best,
            "skipping": self.skipping,
        }
        return {name: part for name, part in parts.items() if part is not None}
