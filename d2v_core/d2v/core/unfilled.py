"""Build modules whose weights are read from a file: in limited memory, and without initial weights."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

# Initialisers of `nn.init` that check for function modes; the others call tensor methods directly.
_DRAWN = (
    *(Tensor.normal_, Tensor.uniform_),
    *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_),
)
_SIZED = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_WIDEST = 8  # maximum bytes of a value
_LARGEST_RATIO, _SMALL = 8, 1 << 28


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Limit the memory of modules built inside the block; their parameters are not initialised.

    The parameters must be set afterwards. See also `without_values`.

    Args:
        most: maximum bytes of all tensors together; more is never allocated.

    Raises:
        ValueError: if more is needed.

    >>> with bounded(1000):
    ...     nn.Linear(1_000_000, 1_000_000)
    Traceback (most recent call last):
    ValueError: the configuration asks for tensors of more than 1000 bytes, and the file holds far fewer
    """
    with _Bounded(most):
        yield


def bounded_by_file(size: int) -> AbstractContextManager[None]:
    """`bounded` for a model whose weights are in a file of `size` bytes, perhaps in half precision."""
    return bounded(_LARGEST_RATIO * size + _SMALL)


@contextmanager
def without_values() -> Iterator[None]:
    """Give modules built inside the block parameters without memory, on the meta device.

    All parameters must be replaced afterwards (`load_strictly` with `assign`); buffers are created as usual.

    >>> with without_values():
    ...     layer = nn.Linear(1000, 1000)
    >>> layer.weight.device.type
    'meta'
    """
    thread = threading.get_ident()

    def emptied(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        if parameter.is_meta or threading.get_ident() != thread:
            return parameter
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    # Hooks of all modules in the process; the declared type lacks the result, which replaces the parameter.
    handle = register_module_parameter_registration_hook(emptied)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


class _Bounded(TorchFunctionMode):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.taken = most, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in _DRAWN:
            target = args[0] if args else named.get("tensor")
            if isinstance(target, nn.Parameter):
                return target
        count = _count(func, args, named)
        self._take(0, allowed=self.taken + count * _WIDEST)
        found = func(*args, **named)
        if isinstance(found, Tensor) and not found.is_meta:
            self._take(found.nbytes, allowed=0)
        return found

    def _take(self, size: int, *, allowed: int) -> None:
        self.taken += size
        if max(self.taken, allowed) > self.most:
            raise ValueError(
                f"the configuration asks for tensors of more than {self.most} bytes, and the file holds far fewer"
            )


def _count(func: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Number of values in the tensor that a factory function would create."""
    if func in _SIZED:
        sizes = args[0] if args and isinstance(args[0], Sequence) else args if args else named.get("size", ())
        return math.prod(size for size in sizes if isinstance(size, int))
    if func is torch.arange and args:
        start, end, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
        return max(0, int((end - start) // (step or 1)) + 1)
    if func is torch.linspace:
        return int(args[2] if len(args) > 2 else named.get("steps", 0))
    return 0
