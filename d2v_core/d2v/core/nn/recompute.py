"""Results that the backward pass computes again, so that they need not be kept for it.

Activations, norms and casts are cheap, but what they give has the size of what was kept of the matrix products.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from d2v.core.precision import autocast_dtype

_SMALL = 1 << 18  # elements; keeping them costs less than to look them up and to compute them again


class _Recomputed:
    """How to compute a tensor again."""

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Any, ...], result: Tensor) -> None:
        # Results that are computed again themselves are inputs only by their recipes, or they would be kept.
        self.function, self.inputs = function, tuple(map(_packed, inputs))
        self.layout, self.version = (result.shape, result.stride()), result._version
        self.device, self.dtype = result.device, autocast_dtype(result.device)

    def result(self) -> Tensor:
        cast = torch.autocast(self.device.type, self.dtype) if self.dtype is not None else nullcontext()
        with torch.no_grad(), cast:
            found = self.function(*map(_unpacked, self.inputs))
        size, stride = self.layout
        if found.stride() == stride:
            return found
        return torch.empty_strided(size, stride, dtype=found.dtype, device=found.device).copy_(found)


class _Kept:
    """A tensor as it is. Autograd leaves the check of changes in place to hooks."""

    def __init__(self, value: Tensor) -> None:
        self.value, self.version = value, value._version

    def result(self) -> Tensor:
        if self.value._version != self.version:
            raise RuntimeError(f"a tensor {tuple(self.value.shape)} that the backward pass needs was modified in place")
        return self.value


class _View:
    """A view of a tensor that is computed again."""

    def __init__(self, recipe: _Recomputed, view: Tensor) -> None:
        self.recipe, self.view = recipe, (view.shape, view.stride(), view.storage_offset())

    def result(self) -> Tensor:
        return self.recipe.result().as_strided(*self.view)


class _Recipes:
    """How to compute the results of a forward pass, by the address of the storage.

    A recipe is known as long as its result lives, so no address is reused meanwhile.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[weakref.ref[Tensor], _Recomputed]] = {}
        self.found = False

    def add(self, address: int, result: Tensor, recipe: _Recomputed) -> None:
        known, self.found = self.known, True
        known[address] = (weakref.ref(result, lambda _: known.pop(address, None)), recipe)


class LargeResults:
    """Whether forward passes have results that are worth computing again; the first pass is taken to have some."""

    def __init__(self) -> None:
        self.expected, self._passes = True, 0

    def add(self, found: bool) -> None:
        """Add a pass. Once some had such results, all are expected to."""
        self.expected = found or (self.expected and self._passes > 0)
        self._passes += 1


_recipes: ContextVar[_Recipes | None] = ContextVar("recipes", default=None)


@contextmanager
def keeping_less(large: LargeResults | None = None) -> Iterator[None]:
    """Do not keep what `recomputed` computes inside for the backward pass.

    Args:
        large: what earlier passes of the same model had; where no large results are expected, all is kept, because the
            hooks of autograd take time for each tensor, large or not. None = they are expected.

    >>> x = torch.ones(300, 300, requires_grad=True)
    >>> with keeping_less():
    ...     y = recomputed(torch.exp, x).square().sum()
    >>> y.backward()
    >>> x.grad[0, 0]
    tensor(14.7781)
    """
    recipes = _Recipes()
    token = _recipes.set(recipes)
    try:
        with saved_tensors_hooks(_packed, _unpacked) if large is None or large.expected else nullcontext():
            yield
    finally:
        _recipes.reset(token)
        if large is not None:
            large.add(recipes.found)


@contextmanager
def keeping_all() -> Iterator[None]:
    """Keep results as usual, inside `keeping_less` too."""
    token = _recipes.set(None)
    try:
        yield
    finally:
        _recipes.reset(token)


def recomputed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Compute a result that `keeping_less` need not keep.

    Args:
        function: gives the same for the same inputs.
        inputs: arguments, tensors or others; what the gradients of `function` need is kept of these.
    """
    result = function(*inputs)
    recipes = None if torch.compiler.is_compiling() else _recipes.get()
    if recipes is None or not result.requires_grad or result.numel() < _SMALL or result.storage_offset():
        return result
    address = result.untyped_storage().data_ptr()
    if all(address != one.untyped_storage().data_ptr() for one in inputs if isinstance(one, Tensor)):
        recipe = _Recomputed(function, tuple(_detached(one) for one in inputs), result)
        recipes.add(address, result, recipe)
    return result


def as_in_autocast(x: Tensor) -> Tensor:
    """Cast an operand of a product as autocast does, which would keep the result for the backward pass.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     as_in_autocast(torch.zeros(2)).dtype, as_in_autocast(torch.zeros(2).double()).dtype
    (torch.bfloat16, torch.float64)
    """
    dtype = autocast_dtype(x.device)
    return x if dtype is None or x.dtype == torch.float64 else recomputed(Tensor.to, x, dtype)


class GELU(nn.GELU):
    """GELU that is computed again; see `recomputed`.

    >>> GELU()(torch.zeros(2))
    tensor([0., 0.])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply GELU to a tensor of any shape."""
        return recomputed(super().forward, input)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _packed(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    recipes = _recipes.get()
    found = None if recipes is None else recipes.known.get(value.untyped_storage().data_ptr())
    if found is None:
        return _Kept(value)
    result, recipe = found[0](), found[1]
    same = result is not None and value.numel() == result.numel() and value.dtype == result.dtype
    return _View(recipe, value) if same and value._version == recipe.version else _Kept(value)


def _unpacked(value: Any) -> Any:
    return value.result() if isinstance(value, _Kept | _View) else value
