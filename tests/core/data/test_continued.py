"""An epoch that some processes began and others continue: nothing twice, and nothing left out but a short tail."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import Noisy, collate

from d2v.core.data import BudgetPlan, DataError, FixedPlan, Loader, Mixture, Plan, RandomOrderPlan, StreamLoader

N = 60
LENGTHS = torch.arange(N) % 7 + 1
Make = Callable[[int, int], Plan]
PLANS: dict[str, Make] = {
    "fixed": lambda rank, workers: FixedPlan(n=N, batch_size=2, seed=3, rank=rank, world_size=workers),
    "budget": lambda rank, workers: BudgetPlan(
        lengths=LENGTHS, max_tokens=14, num_buckets=2, seed=3, rank=rank, world_size=workers
    ),
    "random order": lambda rank, workers: RandomOrderPlan(
        lengths=LENGTHS, max_tokens=14, seed=3, rank=rank, world_size=workers
    ),
}


def loaders(make: Make, workers: int) -> list[Loader[torch.Tensor]]:
    return [Loader(Noisy(N), collate, make(rank, workers)) for rank in range(workers)]


def ids(batches: Any, count: int) -> list[int]:
    return [id for batch in islice(batches, count) for id in batch.ids.tolist()]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(PLANS)), counts=st.lists(st.integers(1, 4), min_size=2, max_size=3))
def test_an_epoch_on_changing_numbers_of_processes(data: st.DataObject, kind: str, counts: list[int]) -> None:
    make, seen, state, before = PLANS[kind], Counter[int](), {"epoch": 1, "batch": 0}, counts[0]
    for number, workers in enumerate(counts):
        ranks = loaders(make, workers)
        state = ranks[0].continued(state, before=before) if number else state
        if state["epoch"] == 2:
            break  # too little was left for these processes
        for rank in ranks:
            rank.load_state_dict(state)
        left = len(ranks[0]) - state["batch"]
        steps = left if number == len(counts) - 1 else data.draw(st.integers(0, left))
        for rank in ranks:
            seen.update(ids(rank, steps))
        assert len({str(rank.state_dict()) for rank in ranks}) == 1
        state, before = ranks[0].state_dict(), workers
        if state["epoch"] == 2:
            break
    assert max(seen.values(), default=1) == 1
    largest = max(len(request.ids) for request in make(0, 1).requests(1))
    assert state["epoch"] == 2
    assert N - len(seen) < workers * largest  # less than a batch for each process


def test_a_continued_position_is_saved_and_restored() -> None:
    (first, *_), (again, *_) = loaders(PLANS["fixed"], 3), loaders(PLANS["fixed"], 3)
    first.load_state_dict(first.continued({"epoch": 0, "batch": 5}, before=2))
    assert first.state_dict() == {"epoch": 0, "batch": 0, "skip": 20}
    begun = ids(first, 2)
    again.load_state_dict(first.state_dict())
    assert ids(again, 2) == ids(first, 2) != begun
    assert len(first) == (N - 20) // 6
    with pytest.raises(ValueError, match="batch 7"):
        again.load_state_dict({"epoch": 0, "batch": 7, "skip": 20})


def test_a_mixture_continues_each_source() -> None:
    mixture = Mixture({"a": loaders(PLANS["fixed"], 2)[0], "b": loaders(PLANS["budget"], 2)[0]}, {"a": 1, "b": 1})
    ids(mixture, 6)
    state = mixture.state_dict()
    continued = mixture.continued(state, before=1)
    assert continued["batch"] == 6
    for name, units in {"a": 2, "b": 1}.items():
        assert continued["sources"][name]["skip"] == units * state["sources"][name]["batch"] > 0


class Numbers:
    """A stream."""

    def __init__(self) -> None:
        self.done = 0

    def __iter__(self) -> Any:
        while self.done < N:
            self.done += 1
            yield torch.tensor([float(self.done)])
        self.done = 0

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


def test_a_stream_is_refused() -> None:
    loader = StreamLoader(Numbers(), collate, batch_size=2)
    start = loader.state_dict()
    assert loader.continued(start, before=2) == start
    ids(loader, 2)
    with pytest.raises(DataError, match="2 process"):
        loader.continued(loader.state_dict(), before=2)
