"""Contents of an unpickled file as plain values: configurations as dicts and lists, tensors by shape."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from d2v.core.foreign.stand_ins import Name, Persistent, StandIn
from d2v.core.foreign.stored import DTYPES, Storage, StoredTensor

_DEEPEST, _MOST_VALUES = 100, 10_000_000
_SCALARS = {"f2": "e", "f4": "f", "f8": "d", "b1": "?"} | {
    f"{sign}{size}": letter.upper() if sign == "u" else letter
    for sign in "iu"
    for size, letter in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))
}


def to_values(found: Any, storage: Callable[[Any], Storage]) -> Any:
    """Convert the result of `unpickle` to plain values.

    Namespaces and OmegaConf's containers become dicts and lists; members of enumerations, paths and NumPy scalars
    become the single value that they were made of; tensors become `StoredTensor`. Unknown objects stay a `StandIn`.

    Args:
        found: shared values stay shared.
        storage: gives the storage of a tensor, by its persistent id.

    Raises:
        ValueError: if a value contains itself, is nested too deeply or is too large when written out, or a tensor does
            not fit its storage.

    >>> namespace = StandIn("argparse.Namespace", state={"depth": 3, "modality": StandIn("some.Modality", ("AUDIO",))})
    >>> to_values({"args": namespace}, storage=lambda id: None)
    {'args': {'depth': 3, 'modality': 'AUDIO'}}
    """
    return _Writing(storage).value(found, 0)[0]


class _Writing:
    """Converts each value once, but counts it as often as it occurs."""

    def __init__(self, storage: Callable[[Any], Storage]) -> None:
        self.storage = storage
        self.done: dict[int, tuple[Any, tuple[Any, int]]] = {}  # keeps the value alive, since its id is the key
        self.open: set[int] = set()

    def value(self, found: Any, depth: int) -> tuple[Any, int]:
        """A plain value, and the number of values in it when written out."""
        if not isinstance(found, dict | list | tuple | set | frozenset | StandIn | Name):
            return found, 1
        if id(found) in self.done:
            return self.done[id(found)][1]
        if id(found) in self.open:
            raise ValueError("a value in it contains itself")
        if depth > _DEEPEST:
            raise ValueError(f"its values are nested more than {_DEEPEST} deep")
        self.open.add(id(found))
        written = self._stand_in(found, depth) if isinstance(found, StandIn) else self._container(found, depth)
        self.open.remove(id(found))
        if written[1] > _MOST_VALUES:
            raise ValueError(f"it contains more than {_MOST_VALUES} values")
        self.done[id(found)] = found, written
        return written

    def _container(self, found: Any, depth: int) -> tuple[Any, int]:
        if isinstance(found, Name):
            return found.path, 1
        if isinstance(found, dict):
            pairs = [(self.value(key, depth + 1)[0], self.value(value, depth + 1)) for key, value in found.items()]
            return {key: value for key, (value, _) in pairs}, 1 + sum(count for _, (_, count) in pairs)
        items = [self.value(item, depth + 1) for item in found]
        kind = tuple if isinstance(found, tuple) else list
        return kind(item for item, _ in items), 1 + sum(count for _, count in items)

    def _stand_in(self, found: StandIn, depth: int) -> tuple[Any, int]:
        if found.kind in _TENSORS:
            return self._tensor(_TENSORS[found.kind], found.args), 1
        if found.kind in _WRAPPERS and found.args:
            return self.value(found.args[0], depth + 1)
        if found.kind == "torch._tensor._rebuild_from_type_v2" and len(found.args) > 2:
            return self.value(StandIn(found.args[0].path, found.args[2]), depth + 1)
        if found.kind.endswith(".multiarray.scalar"):
            return _scalar(*found.args), 1
        state = _attributes(found)
        if found.kind in _NAMESPACES:
            return self.value(state, depth + 1)
        if found.kind.startswith("omegaconf."):
            # Their states also contain their parents, which leads to cycles.
            return self.value(state.get("_content", state.get("_val")), depth + 1)
        if len(found.args) == 1 and not state and not found.items and not found.entries:
            value, count = self.value(found.args[0], depth + 1)
            return (found, 1) if isinstance(value, StoredTensor) else (value, count)
        return found, 1

    def _tensor(self, has_dtype: bool, args: tuple[Any, ...]) -> StoredTensor:
        id, offset, shape, stride, *rest = args
        if not isinstance(id, Persistent) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
            raise ValueError("a tensor in it is not stored in the form of torch.save")
        storage = self.storage(id.id)
        dtype = DTYPES.get(rest[2].path) if has_dtype else storage.dtype
        if dtype is None:
            raise ValueError(f"a tensor in it has an unsupported type: {rest[2].path}")
        return StoredTensor(storage, dtype, offset, shape, stride)


def _attributes(found: StandIn) -> Mapping[str, Any]:
    """Attributes of the object; classes with slots store two mappings of them."""
    parts = found.state if isinstance(found.state, tuple) else (found.state,)
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _scalar(dtype: Any, content: Any, *rest: Any) -> Any:
    """A NumPy scalar from its type and its bytes."""
    code = dtype.args[0] if isinstance(dtype, StandIn) and dtype.args else None
    if not isinstance(content, bytes) or code not in _SCALARS:
        raise ValueError("a NumPy scalar in it has an unsupported type")
    big = isinstance(dtype.state, tuple) and dtype.state[1:2] == (">",)
    (number,) = struct.unpack((">" if big else "<") + _SCALARS[code], content)
    return number


_TENSORS = {
    "torch._utils._rebuild_tensor": False,
    "torch._utils._rebuild_tensor_v2": False,
    "torch._utils._rebuild_tensor_v3": True,
}
_WRAPPERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_NAMESPACES = {"argparse.Namespace", "types.SimpleNamespace"}
