"""Everything of a training that changes, as one value that is saved and restored."""

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from torch import nn
from torch.optim import Optimizer

from d2v.core.train.gradients import sum_over_ranks, world
from d2v.core.train.hooks import restore, states
from d2v.core.train.loss_scale import LossScale
from d2v.core.train.meters import Meters
from d2v.core.train.monitoring import Monitors
from d2v.core.train.resuming import begin_anew, changed_data, changed_machine, machine_of, stored_identity
from d2v.core.train.run_folder import RunFolder, RunFolderError
from d2v.core.train.source import BatchSource
from d2v.core.train.validation import Best


@define(kw_only=True, eq=False)
class TrainingState:
    """Model, optimiser, data and what was counted.

    Args:
        model: trained.
        data: of this rank; its place is the same on all ranks.
        optimizer: of the model.
        loss_scale: for fp16.
        monitors: of the model's targets.
        hooks: of which some keep a state.
        step: finished updates.
        meters: metrics since the last line.
        best: of the validations.
    """

    model: nn.Module
    data: BatchSource
    optimizer: Optimizer
    loss_scale: LossScale | None = None
    monitors: Monitors | None = None
    hooks: Sequence[object] = ()
    step: int = 0
    meters: Meters = field(factory=Meters)
    best: Best = field(factory=Best)

    def save(self, run: RunFolder | None) -> None:
        """Write a checkpoint; on the first rank only, all have the same."""
        if run is None or world()[0] > 0:
            return
        state: dict[str, Any] = {
            "step": self.step,
            "data": self.data.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "hooks": states(self.hooks),
            "identity": stored_identity(self.data),
            "machine": machine_of(self.model),
            **{name: part.state_dict() for name, part in self._parts().items()},
        }
        run.save(self.step, self.model, state, best=self.best.step)

    def restore(self, run: RunFolder | None, *, accept_data: bool = False) -> None:
        """Go on from the newest checkpoint, if there is one.

        Args:
            run: where it is looked for; None = nowhere.
            accept_data: whether to go on where the samples are others than at the checkpoint, with a new epoch.

        Raises:
            RunFolderError: if they are, and that is not accepted.
        """
        if run is None:
            return
        states(self.hooks)  # what cannot be saved is told now, not at the first checkpoint
        # A rank must not look before the first one has opened the folder and cleaned it.
        sum_over_ranks([0], next(self.model.parameters()).device)
        state = run.load(self.model)
        if state is None:
            run.settle(0)
            return
        self.step = state["step"]
        found = list(changed_machine(state.get("machine", {}), machine_of(self.model)))
        other = changed_data(state.get("identity"), self.data)
        if other is None:
            self.data.load_state_dict(state["data"])
        elif accept_data:
            begin_anew(self.data, state["data"])
            found.append(f"{other}; a new epoch begins")
        else:
            raise RunFolderError(
                f"{run.path}: {other}; give the samples of the run, or accept=data to resume with these, or another out"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        restore(self.hooks, state["hooks"])
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])
        run.settle(self.step, found)

    def _parts(self) -> dict[str, Any]:
        parts = {
            "loss_scale": self.loss_scale,
            "monitor": self.monitors,
            "meters": self.meters,
            "best": self.best,
        }
        return {name: part for name, part in parts.items() if part is not None}
