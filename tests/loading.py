"""Data sets that say which sample was read, and what a loader gave."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from d2v.core.data import BrokenSampleError, sample_seed
from d2v.core.model import Batch

Seen = list[tuple[list[int], list[float]]]


class Noisy:
    """Samples whose value says id, seed and epoch; some are broken."""

    def __init__(self, n: int, broken: Iterable[int] = ()) -> None:
        self.n = n
        self.broken = frozenset(broken)

    def __len__(self) -> int:
        return self.n

    def get(self, id: int, *, seed: int, epoch: int) -> Tensor:
        if id in self.broken:
            raise BrokenSampleError(f"file-{id}", "truncated") if id % 2 else OSError(5, "bad disk", f"file-{id}")
        return noise(id, seed=seed, epoch=epoch)


class Counting:
    """A stream of the numbers 0 to 6 that keeps its place."""

    place = 0

    def __iter__(self) -> Iterator[int]:
        while self.place < 7:
            self.place += 1
            yield self.place - 1
        self.place = 0

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def noise(id: int, *, seed: int, epoch: int) -> Tensor:
    return torch.rand(1, generator=torch.Generator().manual_seed(sample_seed(seed=seed, epoch=epoch, id=id)))


def collate(samples: list[Tensor], ids: Tensor) -> Batch:
    return Batch(source=torch.stack(samples), ids=ids)


def take(batches: Iterable[Batch], count: int | None = None) -> Seen:
    """Ids and values of so many batches, None = all; the pass is abandoned then."""
    return [(batch.ids.tolist(), batch.source.flatten().tolist()) for batch in islice(batches, count)]  # type: ignore[union-attr]


def ids_of(batches: Iterable[Batch], count: int | None = None) -> list[list[int]]:
    return [ids for ids, _ in take(batches, count)]
