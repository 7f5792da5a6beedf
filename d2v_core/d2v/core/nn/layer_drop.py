"""Which layers a forward pass skips (layer drop), drawn apart from all other random numbers.

Processes that train together must skip the same layers, but not drop the same activations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_generator: ContextVar[torch.Generator | None] = ContextVar("layer_drop", default=None)


@contextmanager
def layers_drawn_from(seed: int) -> Iterator[None]:
    """Draw the layers to skip from a seed; elsewhere, they are drawn from torch's generator.

    >>> with layers_drawn_from(3):
    ...     first = [skipped(0.5) for _ in range(8)]
    >>> with layers_drawn_from(3):
    ...     first == [skipped(0.5) for _ in range(8)]
    True
    """
    before = _generator.set(torch.Generator().manual_seed(seed))
    try:
        yield
    finally:
        _generator.reset(before)


def skipped(probability: float) -> bool:
    """Draw whether a layer is skipped."""
    return torch.rand((), generator=_generator.get()).item() < probability
