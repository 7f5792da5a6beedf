"""What the loop asks of its data: batches without end, and a position that can be read and set.

It is a protocol and a small source over memory; real loaders live with the data and need not know this file.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from d2v.core.model import Batch


class BatchSource(Protocol):
    """An endless stream of batches that can be entered anywhere.

    `position` is (epoch, batch in the epoch) of the batch that comes next: prefetched batches do not count. It is set
    before `__iter__`; what follows must depend on it (and on seeds) alone.
    """

    position: tuple[int, int]

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `position` on, one epoch after another."""
        ...


class MemorySource:
    """Batches that lie in memory, in a new order each epoch.

    Args:
        batches: of one epoch.
        seed: of the order; None = as given.

    Raises:
        ValueError: if there is no batch.

    >>> source = MemorySource([Batch(source=torch.full((1, 2), float(i))) for i in range(3)], seed=None)
    >>> source.position = (0, 2)
    >>> stream = iter(source)
    >>> next(stream).source[0, 0].item(), source.position, next(stream).source[0, 0].item(), source.position
    (2.0, (1, 0), 0.0, (1, 1))
    """

    def __init__(self, batches: Sequence[Batch], *, seed: int | None = 0) -> None:
        if not batches:
            raise ValueError("no batch to train on; give at least one")
        self.batches = list(batches)
        self.seed = seed
        self.position = (0, 0)

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `position` on."""
        while True:
            epoch, start = self.position
            order = list(range(len(self.batches)))
            if self.seed is not None:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(len(order), generator=generator).tolist()
            for place in range(start, len(order)):
                # Before the batch is handed out: whoever has it reads the position of the next one.
                self.position = (epoch, place + 1) if place + 1 < len(order) else (epoch + 1, 0)
                yield self.batches[order[place]]
