"""Parameters that are frozen at the beginning of a training."""

from collections.abc import Iterable

from attrs.validators import ge
from torch import nn

from d2v.core.patterns import matching
from d2v.core.validators import check


class Freeze:
    """Freezes parameters for the first `updates` updates (`freeze_finetune_updates`).

    Parameters that are already frozen when this object is created stay frozen.

    Args:
        model: module that contains the parameters.
        patterns: patterns of parameters or modules; "*" matches within one component of the dotted name.
        updates: number of updates after which the parameters are trained.

    Raises:
        ValueError: if a pattern matches nothing, or `updates` is negative.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> freeze = Freeze(model, ["0"], updates=10)
    >>> freeze.apply(9); [parameter.requires_grad for parameter in model.parameters()]
    [False, False, True, True]
    >>> freeze.apply(10); all(parameter.requires_grad for parameter in model.parameters())
    True
    """

    def __init__(self, model: nn.Module, patterns: Iterable[str], *, updates: int) -> None:
        check(ge(0), updates=updates)
        parameters = dict(model.named_parameters())
        names = [*parameters, *(name for name, _ in model.named_modules() if name)]
        found = matching(patterns, names, of=f"the {type(model).__name__}")
        self.updates = updates
        self._parameters = [
            parameter
            for name, parameter in parameters.items()
            if parameter.requires_grad and any(name == part or name.startswith(f"{part}.") for part in found)
        ]

    def apply(self, n: int) -> None:
        """Freeze or unfreeze the parameters for the update that follows `n` finished ones."""
        for parameter in self._parameters:
            parameter.requires_grad_(n >= self.updates)
