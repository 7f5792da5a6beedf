"""The states of hooks: a hook with `state_dict` and `load_state_dict` goes on where it was.

Hooks are plain objects; nothing else of theirs is known here.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from d2v.core.train.run_folder import RunFolderError

# Exactly these: a subclass (NumPy's numbers, say) is written by its class, which reading a checkpoint never imports.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_SEQUENCES = frozenset({list, tuple, set})
_MAPPINGS = frozenset({dict, OrderedDict})


def with_state(hooks: Iterable[object]) -> dict[str, Any]:
    """Hooks that keep a state, by name.

    A hook's name is its `name`, if that is a text; else its class and its number among the hooks of this class that
    have a state and no `name`.

    Raises:
        ValueError: if two have the same name.

    >>> import torch
    >>> list(with_state([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), print]))
    ['Linear-0', 'Linear-1']
    """
    found: dict[str, Any] = {}
    numbers: Counter[str] = Counter()
    for hook in hooks:
        if not (hasattr(hook, "state_dict") and hasattr(hook, "load_state_dict")):
            continue
        name = getattr(hook, "name", None)
        if not isinstance(name, str):
            kind = type(hook).__name__
            name = f"{kind}-{numbers[kind]}"
            numbers[kind] += 1
        if name in found:
            raise ValueError(f"two hooks are named {name!r}; a hook with a state needs a name of its own")
        found[name] = hook
    return found


def states(hooks: Iterable[object]) -> dict[str, Any]:
    """The states of hooks by their names, for a checkpoint.

    Raises:
        ValueError: if two have the same name.
        TypeError: if a state holds what a checkpoint cannot give back.
    """
    found = {name: hook.state_dict() for name, hook in with_state(hooks).items()}
    for name, state in found.items():
        _check(state, name)
    return found


def restore(hooks: Iterable[object], saved: Mapping[str, Any]) -> None:
    """Give hooks the states that were saved.

    Raises:
        ValueError: if two have the same name.
        RunFolderError: if these are not the hooks that were saved.
    """
    ours = with_state(hooks)
    if lacking := sorted(saved.keys() - ours.keys()):
        raise RunFolderError(
            f"the checkpoint holds the state of hooks that this run lacks: {', '.join(lacking)}; "
            f"give fit the hooks of the run that it goes on with (here: {', '.join(ours) or 'none'})"
        )
    if new := sorted(ours.keys() - saved.keys()):
        raise RunFolderError(
            f"the checkpoint holds no state of these hooks: {', '.join(new)} (it has: {', '.join(saved) or 'none'}); "
            "leave them out, or begin in another run folder"
        )
    for name, hook in ours.items():
        hook.load_state_dict(saved[name])


def _check(value: object, place: str) -> None:
    if type(value) in _PLAIN or isinstance(value, Tensor):
        return
    if type(value) in _MAPPINGS:
        for key, item in value.items():  # type: ignore[attr-defined]  # it is a dict
            _check(key, f"a key of {place}")
            _check(item, f"{place}.{key}")
    elif type(value) in _SEQUENCES:
        for item in value:  # type: ignore[attr-defined]  # it is a list, tuple or set
            _check(item, place)
    else:
        raise TypeError(
            f"the state of hook {place} is a {type(value).__module__}.{type(value).__qualname__}; "
            "a checkpoint holds tensors, numbers, texts, lists and dicts"
        )
