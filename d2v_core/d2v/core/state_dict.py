"""Strict loading of a module's tensors by name: either all tensors are set, or none."""

from collections.abc import Collection, Mapping
from itertools import islice

from torch import Tensor, nn

_SHOWN = 8


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], below: tuple[str, ...] = ("",), *, assign: bool = False
) -> None:
    """Set a module's tensors by name, strictly.

    Args:
        module: module to change in place.
        state: tensors by name.
        below: prefixes of the names that are required; other tensors are unchanged.
        assign: whether tensors become those of the module, in its types, instead of being copied into them; no two may
            share memory.

    Raises:
        ValueError: naming all tensors that are missing, unexpected or of another shape; no tensor is set then.

    >>> import torch
    >>> load_strictly(nn.Linear(1, 2), {"weight": torch.zeros(2, 1)})
    Traceback (most recent call last):
    ValueError: the tensors do not fit the model; 1 tensors missing: bias
    """
    expected = {name: tensor for name, tensor in module.state_dict().items() if name.startswith(below)}
    problems = misfits(shapes_of(expected), shapes_of(state))
    if any(problems.values()):
        raise ValueError(f"the tensors do not fit the model; {complaint(problems)}")
    if assign:
        state = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    module.load_state_dict(dict(state), strict=False, assign=assign)


def misfits(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Compare shapes by name; return the names that are "missing", "unexpected" and "of another shape"."""
    return {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys()),
        "of another shape": [
            f"{name} {given[name]} for {shape}"
            for name, shape in expected.items()
            if name in given and given[name] != shape
        ],
    }


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def complaint(problems: Mapping[str, Collection[str]]) -> str:
    """Return one line about the output of `misfits`.

    >>> complaint({"missing": [str(i) for i in range(10)], "unexpected": []})
    '10 tensors missing: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more'
    """
    return "; ".join(f"{len(names)} tensors {what}: {_some_of(names)}" for what, names in problems.items() if names)


def _some_of(names: Collection[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(islice(names, _SHOWN)) + (f" and {more} more" if more > 0 else "")
