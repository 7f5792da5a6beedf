"""Interface of the loop's data: endless batches with a position that can be saved and restored; and a source in memory.

Loaders are in `d2v.core.data` and do not depend on this module.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from d2v.core.data import KeyedPermutation
from d2v.core.model import Batch


class BatchSource(Protocol):
    """An endless source of batches that can start at any position.

    The position is that of the next batch: prefetched batches do not count. It is set before `__iter__`, and the
    following batches must depend only on it and on seeds. It is the same on all ranks.
    """

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from the position on, one epoch after another."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Position, as plain values and tensors."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the position."""
        ...


class MemorySource:
    """Source of batches in memory, in a new order each epoch.

    Args:
        batches: batches of one epoch.
        seed: seed of the order; None = the given order.

    Raises:
        ValueError: if there is no batch.

    >>> import torch
    >>> source = MemorySource([Batch(source=torch.full((1, 2), float(i))) for i in range(3)], seed=None)
    >>> source.load_state_dict({"epoch": 0, "batch": 2})
    >>> stream = iter(source)
    >>> next(stream).source[0, 0].item(), source.state_dict(), next(stream).source[0, 0].item()
    (2.0, {'epoch': 1, 'batch': 0}, 0.0)
    """

    def __init__(self, batches: Sequence[Batch], *, seed: int | None = 0) -> None:
        if not batches:
            raise ValueError("no batch to train on; give at least one")
        self.batches = list(batches)
        self.seed = seed
        self._position = (0, 0)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from the position on."""
        while True:
            epoch, batch = self._position
            number = batch
            if self.seed is not None:
                number = KeyedPermutation(len(self.batches), seed=self.seed, epoch=epoch)[batch]
            # Before the batch is yielded: inside the loop's body, the position is that of the next batch.
            self._position = (epoch, batch + 1) if batch + 1 < len(self.batches) else (epoch + 1, 0)
            yield self.batches[number]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and the next batch in it."""
        epoch, batch = self._position
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the position."""
        self._position = (state["epoch"], state["batch"])
