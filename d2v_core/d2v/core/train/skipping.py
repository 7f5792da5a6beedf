"""Updates that are not applied: their loss or gradient is not finite, or their loss is a spike.

The decision needs plain numbers that are the same on all ranks, and what it remembers is saved in checkpoints. So all
ranks skip the same updates, and a resumed run skips those of an uninterrupted one.
"""

import logging
import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field, validators
from torch import distributed as dist

from d2v.core.model import StepOutput
from d2v.core.train.loss_scale import NonFiniteError
from d2v.core.train.ranks import world
from d2v.core.validators import Validator, must

_logger = logging.getLogger(__name__)
_WINDOW = 100  # losses that a spike is compared with
_FEWEST = 20  # losses that must be known before: at the beginning the loss falls fast
off_or_above_one: Validator = must(lambda ratio: ratio == 0 or 1 < ratio < math.inf, "0 = off, or finite and above 1")


class LossSpikeError(RuntimeError):
    """The loss of an update is a spike. The weights are those of the last finished update."""


@define(kw_only=True)
class Skipping:
    """Rule for updates that are not applied, and how many of them a run may have.

    An update that is not applied counts as one: its batch is used up, and the schedules go on. Optimiser and teacher
    make no step. In fp16, `LossScale` handles overflows.

    Args:
        limit: updates of the run that may be skipped; the next one ends it with an error.
        spike_ratio: an update is a spike if its loss is more than this many times the median of the last 100 that were
            applied; 0 = off. For losses above 0.
        debug: whether the batches of such an update are saved in the run folder, see `SavedUpdate`.
        skipped: updates that were skipped so far.

    Raises:
        ValueError: if `limit` is below 0, or `spike_ratio` is neither 0 nor above 1.

    >>> rule = Skipping(spike_ratio=3.0)
    >>> for _ in range(20):
    ...     rule.fault(loss=0.5, norm=1.0)
    >>> rule.fault(loss=2.0, norm=1.0)
    'its loss of 2 is 4.0 times the median of the 20 before (train.spike_ratio=3)'
    """

    limit: int = field(default=0, validator=validators.ge(0))
    spike_ratio: float = field(default=0.0, validator=off_or_above_one)
    debug: bool = False
    skipped: int = 0
    _losses: deque[float] = field(init=False, factory=lambda: deque(maxlen=_WINDOW))

    def fault(self, *, loss: float | None, norm: float) -> str | None:
        """Return why an update must not be applied; None = it is applied.

        Args:
            loss: mean loss of all ranks; None = unknown, which is enough if `spike_ratio` is 0.
            norm: total norm of its gradients.
        """
        if not math.isfinite(norm) or (loss is not None and not math.isfinite(loss)):
            return f"its loss or gradient is not finite (gradient norm {norm})"
        if loss is None or not self.spike_ratio:
            return None
        median = statistics.median(self._losses) if len(self._losses) >= _FEWEST else 0.0
        if median > 0 and loss > self.spike_ratio * median:
            return (
                f"its loss of {loss:.4g} is {loss / median:.1f} times the median of the {len(self._losses)} before "
                f"(train.spike_ratio={self.spike_ratio:g})"
            )
        self._losses.append(loss)
        return None

    def skip(self, update: int, reason: str, *, finite: bool, saved: str = "") -> None:
        """Count an update that is not applied.

        Args:
            update: its number, from 1.
            reason: output of `fault`.
            finite: whether its loss and gradient are finite.
            saved: where its batches were saved, if they were.

        Raises:
            NonFiniteError, LossSpikeError: if no more updates may be skipped.
        """
        where = f"; its batches are in {saved}" if saved else ""
        if self.skipped >= self.limit:
            before = f" after {self.skipped} that were skipped" if self.skipped else ""
            kind, advice = (LossSpikeError, "") if finite else (NonFiniteError, ", gradient clipping or precision=fp32")
            raise kind(
                f"update {update} is not applied{before}: {reason}; weights and checkpoints are those of earlier "
                f"updates; try a lower learning rate{advice}, or train.max_skipped_updates={self.skipped + 1} or more "
                f"with resume=true{where}"
            )
        self.skipped += 1
        _logger.warning(
            "update %d is skipped (%d of at most %d): %s%s", update, self.skipped, self.limit, reason, where
        )

    def state_dict(self) -> dict[str, Any]:
        """State to save in a checkpoint."""
        return {"skipped": self.skipped, "losses": list(self._losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self.skipped = state["skipped"]
        self._losses = deque(state["losses"], maxlen=_WINDOW)


def mean_loss(outputs: Sequence[StepOutput], count: int) -> float:
    """Return the mean loss of an update over all ranks, the same on each; it waits for the device."""
    total = torch.stack([output.loss_sum.detach().double() for output in outputs]).sum()
    if world()[1] > 1:
        dist.all_reduce(total)
    return float(total) / count
