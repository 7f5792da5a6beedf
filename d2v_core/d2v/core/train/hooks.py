"""State of hooks: a hook with `state_dict` and `load_state_dict` is saved in checkpoints and restored from them."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from d2v.core.train.run_config import RunFolderError

# No subclasses (for example NumPy's numbers): they are stored with their class, and loading a checkpoint imports none.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_SEQUENCES = frozenset({list, tuple, set})
_MAPPINGS = frozenset({dict, OrderedDict})


def with_state(hooks: Iterable[object]) -> dict[str, Any]:
    """Return the hooks that have a state, by name.

    The name of a hook is its `name` if that is a string. Otherwise it is its class and its number among the hooks of
    this class that have a state and no `name`.

    Raises:
        ValueError: if two hooks have the same name.

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
            raise ValueError(f"two hooks are named {name!r}; a hook with a state needs a unique name")
        found[name] = hook
    return found


def states(hooks: Iterable[object]) -> dict[str, Any]:
    """Return the states of hooks by name, for a checkpoint.

    Raises:
        ValueError: if two hooks have the same name.
        TypeError: if a state contains a value that a checkpoint cannot store.
    """
    found = {name: hook.state_dict() for name, hook in with_state(hooks).items()}
    for name, state in found.items():
        _check(state, name)
    return found


def restore(hooks: Iterable[object], saved: Mapping[str, Any]) -> None:
    """Restore the saved states of hooks.

    Raises:
        ValueError: if two hooks have the same name.
        RunFolderError: if these are not the hooks that were saved.
    """
    given = with_state(hooks)
    if missing := sorted(saved.keys() - given.keys()):
        raise RunFolderError(
            f"the checkpoint contains the state of hooks that this run lacks: {', '.join(missing)}; "
            f"pass the hooks of the resumed run to fit (given: {', '.join(given) or 'none'})"
        )
    if new := sorted(given.keys() - saved.keys()):
        raise RunFolderError(
            f"the checkpoint contains no state of these hooks: {', '.join(new)} (it has: {', '.join(saved) or 'none'})"
            "; leave them out, or start in another run folder"
        )
    for name, hook in given.items():
        hook.load_state_dict(saved[name])


def _check(value: object, where: str) -> None:
    if type(value) in _PLAIN or isinstance(value, Tensor):
        return
    if type(value) in _MAPPINGS:
        for key, item in value.items():  # type: ignore[attr-defined]  # it is a dict
            _check(key, f"a key of {where}")
            _check(item, f"{where}.{key}")
    elif type(value) in _SEQUENCES:
        for item in value:  # type: ignore[attr-defined]  # it is a list, tuple or set
            _check(item, where)
    else:
        raise TypeError(
            f"the state of hook {where} is a {type(value).__module__}.{type(value).__qualname__}; "
            "a checkpoint can store tensors, numbers, strings, lists and dicts"
        )
