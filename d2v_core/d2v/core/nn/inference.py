"""Computation for results alone: no gradients, and weights that stay as they are from batch to batch.

Then weights can be kept in the layout and precision of a kernel, and padding need not be computed. Modules look here
for what is active. They hold nothing of it, so they are the same before and after, for other threads too.
"""

import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SOME = 8  # numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class _Packed:
    weight: "weakref.ref[Tensor]"
    state: tuple[int, int, list[float]]
    packed: Any


class PackedWeights:
    """Weights in the layouts of kernels, kept outside of the modules, which stay as they are.

    A weight is packed again after it was changed in place, replaced or moved; a write to a part of `weight.data` is not
    seen. Copies and pickles have none.

    >>> packed, weight = PackedWeights(), torch.ones(2)
    >>> packed.of(weight, "twice", lambda: weight * 2)
    tensor([2., 2.])
    >>> packed.of(weight, "twice", lambda: weight * 3)
    tensor([2., 2.])
    >>> _ = weight.add_(1)
    >>> packed.of(weight, "twice", lambda: weight * 2)
    tensor([4., 4.])
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, object], _Packed] = {}

    def of(self, weight: Tensor, layout: object, pack: Callable[[], Any]) -> Any:
        """Return what `pack` made of a weight for a layout, as long as the weight is what it was."""
        key, state = (id(weight), layout), _state(weight)
        found = self._known.get(key)
        if found is None or found.weight() is not weight or found.state != state:
            known = self._known
            forget = weakref.ref(weight, lambda _: known.pop(key, None))
            found = known[key] = _Packed(weight=forget, state=state, packed=pack())
        return found.packed

    def __reduce__(self) -> tuple[type["PackedWeights"], tuple[()]]:
        """Layouts of kernels can be neither copied nor pickled."""
        return PackedWeights, ()


_active: ContextVar[tuple[PackedWeights, frozenset[str]] | None] = ContextVar("active", default=None)


@contextmanager
def inferring(packed: PackedWeights, forms: Collection[str] = ()) -> Iterator[None]:
    """Compute without gradients inside, with weights that are kept packed for the next time.

    Args:
        packed: keeps the weights.
        forms: names of the other forms that modules take inside (`TwoForms`).

    >>> with inferring(PackedWeights()):
    ...     torch.ones(1, requires_grad=True).sum().requires_grad
    False
    """
    token = _active.set((packed, frozenset(forms)))
    try:
        with torch.no_grad():
            yield
    finally:
        _active.reset(token)


def packed_weights() -> PackedWeights | None:
    """Return the weights of `inferring`; None outside, in compiled and exported graphs, and where gradients are needed.

    >>> packed_weights() is None
    True
    """
    active = _found()
    return None if active is None else active[0]


def inference_takes(form: str) -> bool:
    """Whether a form is among those of `inferring`.

    >>> with inferring(PackedWeights(), ["onednn-linear"]):
    ...     inference_takes("onednn-linear"), inference_takes("row-attention")
    (True, False)
    """
    active = _found()
    return active is not None and form in active[1]


def _found() -> tuple[PackedWeights, frozenset[str]] | None:
    return None if torch.compiler.is_compiling() or torch.is_grad_enabled() else _active.get()


def _state(weight: Tensor) -> tuple[int, int, list[float]]:
    # Writes to `weight.data` change no version, but some of these numbers if they are to all of the weight.
    some = weight.detach().flatten()[:: weight.numel() // _SOME + 1]
    return 0 if weight.is_inference() else weight._version, weight.data_ptr(), some.tolist()
