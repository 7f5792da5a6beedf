"""What the loop asks of its data: batches without end, and a place that can be saved and restored.

It is a protocol and a small source over memory; real loaders live with the data and need not know this file.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from d2v.core.data import KeyedPermutation
from d2v.core.model import Batch


class BatchSource(Protocol):
    """An endless source of batches that can be entered anywhere.

    The place is that of the batch that comes next: prefetched batches do not count. It is set before `__iter__`; what
    follows must depend on it (and on seeds) alone. It is the same on all ranks.
    """

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the place on, one epoch after another."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The place, as plain values and tensors."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the place."""
        ...


class MemorySource:
    """Batches that lie in memory, in a new order each epoch.

    Args:
        batches: of one epoch.
        seed: of the order; None = as given.

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
        self._place = (0, 0)

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the place on."""
        while True:
            epoch, batch = self._place
            number = batch
            if self.seed is not None:
                number = KeyedPermutation(len(self.batches), seed=self.seed, epoch=epoch)[batch]
            # Before the batch is handed out: whoever has it reads the place of the next one.
            self._place = (epoch, batch + 1) if batch + 1 < len(self.batches) else (epoch + 1, 0)
            yield self.batches[number]

    def state_dict(self) -> dict[str, Any]:
        """Epoch, and the next batch in it."""
        epoch, batch = self._place
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the place."""
        self._place = (state["epoch"], state["batch"])
