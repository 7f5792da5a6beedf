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
from d2v.core.train.run_folder import RunFolder
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
            **{name: part.state_dict() for name, part in self._parts().items()},
        }
        run.save(self.step, self.model, state, best=self.best.step)

    def restore(self, run: RunFolder | None) -> None:
        """Go on from the newest checkpoint, if there is one."""
        if run is None:
            return
        states(self.hooks)  # what cannot be saved is told now, not at the first checkpoint
        # A rank must not look before the first one has opened the folder and cleaned it.
        sum_over_ranks([0], next(self.model.parameters()).device)
        state = run.load(self.model)
        if state is None:
            return
        self.step = state["step"]
        self.data.load_state_dict(state["data"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore(self.hooks, state["hooks"])
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {
            "loss_scale": self.loss_scale,
            "monitor": self.monitors,
            "meters": self.meters,
            "best": self.best,
        }
        return {name: part for name, part in parts.items() if part is not None}
