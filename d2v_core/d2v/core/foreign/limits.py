"""Build modules of sizes from a third-party file: in limited memory, and without drawing initial weights."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LONGEST_JSON = 1 << 25
"""Limit of a JSON file or header in bytes; the largest known one, a vocabulary, has 1 MB."""

# Initialisers of `nn.init` that check for function modes; the others call tensor methods directly.
_DRAWN = (
    *(Tensor.normal_, Tensor.uniform_),
    *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_),
)
_SIZED = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_WIDEST = 8  # maximum bytes of a value


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Limit the memory of modules built inside the block; their parameters are not initialised.

    The parameters must be set afterwards.

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
        if isinstance(found, Tensor):
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
