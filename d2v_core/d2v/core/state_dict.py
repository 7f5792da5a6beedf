"""Setting a module's tensors by name, all of them or not at all."""

from collections.abc import Collection, Mapping
from itertools import islice

from torch import Tensor, nn

_SHOWN = 8


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], below: tuple[str, ...] = ("",)) -> None:
    """Set a module's tensors, strictly.

    Args:
        module: to set in place.
        state: by name.
        below: prefixes of the names that must be there; others stay as they are.

    Raises:
        ValueError: naming together what is missing, unexpected or of another shape; nothing is set then.

    >>> import torch
    >>> load_strictly(nn.Linear(1, 2), {"weight": torch.zeros(3, 1)})
    Traceback (most recent call last):
    ValueError: the tensors do not fit the model; 1 missing: bias; 1 of another shape: weight (3, 1) for (2, 1)
    """
    expected = {name: tensor for name, tensor in module.state_dict().items() if name.startswith(below)}
    problems = misfits(expected, state)
    if problems:
        raise ValueError(f"the tensors do not fit the model; {'; '.join(problems)}")
    module.load_state_dict(dict(state), strict=False)


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """In words, how tensors differ in names and shapes from those that are expected; empty = they fit."""
    shapes = (
        f"{name} {tuple(given[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    )
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys()),
        "of another shape": list(shapes),
    }
    return [f"{len(names)} {what}: {some_of(names)}" for what, names in problems.items() if names]


def some_of(names: Collection[str]) -> str:
    """The first names of many, and how many more there are.

    >>> some_of([str(i) for i in range(10)])
    '0, 1, 2, 3, 4, 5, 6, 7 and 2 more'
    """
    more = len(names) - _SHOWN
    return ", ".join(islice(names, _SHOWN)) + (f" and {more} more" if more > 0 else "")
