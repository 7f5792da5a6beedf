"""Parts of a model that do not train at first."""

from collections.abc import Iterable

from attrs.validators import ge
from torch import nn

from d2v.core.patterns import matching
from d2v.core.validators import check


class Freeze:
    """Parameters without gradient while fewer than `updates` updates are finished (`freeze_finetune_updates`).

    Parameters that do not train when this is made are left alone.

    Args:
        model: whose parameters.
        patterns: of parameters or modules; "*" stays within its part of the dotted name.
        updates: after which they train.

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
        """Freeze or thaw for the update that follows `n` finished ones."""
        for parameter in self._parameters:
            parameter.requires_grad_(n >= self.updates)
