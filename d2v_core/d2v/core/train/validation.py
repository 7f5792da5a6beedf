"""When to look at held-out data, which checkpoint is the best, and when to stop early."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen, validators


@frozen(kw_only=True)
class Validation:
    """A callable that measures, and what its numbers decide.

    Args:
        run: gives metrics by name; the model is in eval mode meanwhile, without gradients.
        every: updates between two calls.
        start: finished updates before which it is not called.
        best: metric by which the best checkpoint is kept; None = none is.
        higher: whether more of it is better.
        patience: stop after so many validations without a better one; None = never.

    Raises:
        ValueError: if a number is too small, or there is patience without a metric.

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
        """Whether held-out data is looked at after so many finished updates.

        >>> rule = Validation(run=dict, every=10, start=25)
        >>> [step for step in range(1, 50) if rule.due(step)]
        [30, 40]
        """
        return step >= self.start and step % self.every == 0

    @patience.validator
    def _check(self, _: object, patience: int | None) -> None:
        if patience is not None and self.best is None:
            raise ValueError(f"patience={patience} needs a metric to wait for; name one in best")


@define
class Best:
    """The best validation so far, and how long ago it was.

    Args:
        step: finished updates at it; None = there was none.
        value: of the metric.
        waited: validations since.
    """

    step: int | None = None
    value: float = math.nan
    waited: int = 0

    def see(self, step: int, metrics: Mapping[str, float], rule: Validation) -> bool:
        """Take a validation; says whether it is the best so far.

        Raises:
            ValueError: if the metric is not among the named ones.
        """
        if rule.best is None:
            return False
        if rule.best not in metrics:
            raise ValueError(f"validation gives no metric {rule.best!r}, only {', '.join(metrics) or 'none'}")
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
        """Whether patience has run out."""
        return rule is not None and rule.patience is not None and self.waited >= rule.patience

    def state_dict(self) -> dict[str, Any]:
        """What has to outlive the process."""
        return {"step": self.step, "value": self.value, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another was."""
        self.step, self.value, self.waited = state["step"], state["value"], state["waited"]
