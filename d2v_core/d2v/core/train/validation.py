"""Validation on held-out data, selection of the best checkpoint, and early stopping."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen, validators


@frozen(kw_only=True)
class Validation:
    """Function that computes validation metrics, and rules for the best checkpoint and early stopping.

    Args:
        run: function that returns metrics by name; the model is in eval mode during the call, without gradients.
        every: updates between two validations.
        start: number of finished updates before the first validation.
        best: metric by which the best checkpoint is selected; None = no selection.
        higher: whether a higher value is better.
        patience: number of validations without improvement after which training stops; None = never.

    Raises:
        ValueError: if a number is too small, or `patience` is given without `best`.

    >>> Validation(run=lambda: {"val_accuracy": 0.5}, every=100, best="val_accuracy", higher=True).patience is None
    True
    """

    run: Callable[[], Mapping[str, float]]
    every: int = field(validator=validators.ge(1))
    start: int = field(default=0, validator=validators.ge(0))
    best: str | None = None
    higher: bool = False
    patience: int | None = field(default=None, validator=validators.optional(validators.ge(1)))

    def due(self, step: int) -> bool:
        """Whether a validation is due after `step` finished updates.

        >>> rule = Validation(run=dict, every=10, start=25)
        >>> [step for step in range(1, 50) if rule.due(step)]
        [30, 40]
        """
        return step >= self.start and step % self.every == 0

    @patience.validator
    def _check(self, _: object, patience: int | None) -> None:
        if patience is not None and self.best is None:
            raise ValueError(f"patience={patience} needs a metric; name it in best")


@define
class Best:
    """The best validation so far.

    Args:
        step: number of finished updates at that validation; None = no validation so far.
        value: value of the metric.
        waited: number of validations since then.
    """

    step: int | None = None
    value: float = math.nan
    waited: int = 0

    def see(self, step: int, metrics: Mapping[str, float], rule: Validation) -> bool:
        """Add a validation; return whether it is the best so far.

        Raises:
            ValueError: if the validation lacks the metric.
        """
        if rule.best is None:
            return False
        if rule.best not in metrics:
            raise ValueError(f"the validation returns no metric {rule.best!r}, only {', '.join(metrics) or 'none'}")
        value = metrics[rule.best]
        better = not math.isnan(value) and (
            self.step is None or (value > self.value if rule.higher else value < self.value)
        )
        if better:
            self.step, self.value, self.waited = step, value, 0
        else:
            self.waited += 1
        return better

    def exhausted(self, rule: Validation | None) -> bool:
        """Whether the patience is exhausted."""
        return rule is not None and rule.patience is not None and self.waited >= rule.patience

    def state_dict(self) -> dict[str, Any]:
        """State to save in a checkpoint."""
        return {"step": self.step, "value": self.value, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self.step, self.value, self.waited = state["step"], state["value"], state["waited"]
