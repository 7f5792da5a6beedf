"""Setting a module's tensors by name, all of them or not at all."""

from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SHOWN = 8
_DRAWN = (Tensor.normal_, Tensor.uniform_)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], below: tuple[str, ...] = ("",)) -> None:
    """Set a module's tensors, strictly.

    Args:
        module: to set in place.
        state: by name.
        below: prefixes of the names that must be there; others stay as they are.

    Raises:
        ValueError: naming together what is missing, unexpected or of another shape; nothing is set then.

    >>> load_strictly(nn.Linear(1, 2), {"weight": torch.zeros(3, 1)})
    Traceback (most recent call last):
    ValueError: the tensors do not fit the model;
    1 tensors missing: bias; 1 tensors of another shape: weight (3, 1) for (2, 1)
    """
    expected = {name: tensor for name, tensor in module.state_dict().items() if name.startswith(below)}
    problems = misfits(expected, state)
    if any(problems.values()):
        raise ValueError(f"the tensors do not fit the model; {complaint(problems)}")
    module.load_state_dict(dict(state), strict=False)


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names of the tensors that are missing, unexpected or of another shape, by these words."""
    return {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} for {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in given and given[name].shape != tensor.shape
        ],
    }


def complaint(problems: Mapping[str, Collection[str]]) -> str:
    """One line about tensors, by what is wrong with them.

    >>> complaint({"missing": [str(i) for i in range(10)], "unexpected": []})
    '10 tensors missing: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more'
    """
    return "; ".join(f"{len(names)} tensors {what}: {_some_of(names)}" for what, names in problems.items() if names)


def _some_of(names: Collection[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(islice(names, _SHOWN)) + (f" and {more} more" if more > 0 else "")


class without_initialisation(TorchFunctionMode):  # noqa: N801  # read as a function: `with without_initialisation():`
    """While it is entered, parameters keep whatever their memory held: for modules whose tensors are set next.

    >>> with without_initialisation():
    ...     module = nn.Linear(1, 2)
    >>> load_strictly(module, {"weight": torch.zeros(2, 1), "bias": torch.ones(2)})
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave out drawing the values of a parameter; all else is computed, buffers among it."""
        if func in _DRAWN and isinstance(args[0], nn.Parameter):
            return args[0]
        return func(*args, **(kwargs or {}))
