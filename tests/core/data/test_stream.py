"""Streams: batches of what cannot be entered by number, and exact resuming all the same."""

import copy
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loading import Noisy, Seen, collate, ids_of, noise, take
from torch import Tensor

from d2v.core.data import BrokenSampleError, DataError, FixedPlan, Loader, StreamLoader
from d2v.core.data.batches import known_length

quick = settings(max_examples=25, deadline=None)


class Numbers:
    """Numbers in an order that turns with every pass; it keeps its place as a reader of shards would."""

    def __init__(self, n: int) -> None:
        self.n, self.place, self.turn, self.read = n, 0, 0, 0

    def __iter__(self) -> Iterator[int]:
        while self.place < self.n:
            self.place += 1
            self.read += 1
            yield (self.place - 1 + self.turn) % self.n
        self.place, self.turn = 0, self.turn + 1

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "turn": self.turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place, self.turn = state["place"], state["turn"]


class Reader:
    """Samples that say record, id, seed and epoch; records in `broken` cannot be read."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken

    def __call__(self, record: int, id: int, *, seed: int, epoch: int) -> Tensor:
        if record in self.broken:
            raise BrokenSampleError(f"record-{record}", "truncated")
        return noise(id, seed=seed, epoch=epoch) + record


def make(n: int = 11, *broken: int, **options: Any) -> StreamLoader[int]:
    return StreamLoader(Numbers(n), collate, read=Reader(*broken), **{"batch_size": 3, "seed": 5, **options})


def records(seen: Seen) -> list[list[int]]:
    return [[int(value) for value in values] for _, values in seen]


@quick
@given(
    n=st.integers(6, 30),
    stop=st.integers(0, 12),
    shuffle=st.integers(0, 20),
    broken=st.sets(st.integers(0, 29), max_size=2),
    world=st.integers(1, 2),
    endless=st.booleans(),
)
@example(n=6, stop=2, shuffle=9, broken=set(), world=1, endless=True)
@example(n=7, stop=3, shuffle=9, broken=set(), world=1, endless=False)
@example(n=16, stop=5, shuffle=5, broken={13}, world=1, endless=False)  # what is left is broken
def test_resuming_anywhere(n: int, stop: int, shuffle: int, broken: set[int], world: int, endless: bool) -> None:
    options = {"shuffle": shuffle, "world_size": world, "rank": world - 1, "endless": endless}
    through = take(make(n, *broken, **options), 12)
    stop = min(stop, len(through))  # asked for more, a single pass ends and goes back to its beginning
    before = make(n, *broken, **options)
    first = take(before, stop)
    after = make(n, *broken, **options)
    after.load_state_dict(before.state_dict())
    assert first + take(after, 12 - stop) == through
    if endless:
        assert take(before, 12 - stop) == through[stop:]


@pytest.mark.parametrize("shuffle", [0, 6])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int, shuffle: int) -> None:
    through = take(make(11, 4, shuffle=shuffle), 8)
    loader = make(11, 4, shuffle=shuffle, num_workers=workers)
    assert take(loader, 3) == through[:3]
    state = loader.state_dict()
    assert take(loader, 5) == through[3:]
    loader.load_state_dict(state)
    assert take(loader, 5) == through[3:]
    assert loader.broken == {"record-4": "truncated"}


@quick
@given(n=st.integers(1, 40), batch=st.integers(1, 4), world=st.integers(1, 4), shuffle=st.integers(0, 20))
def test_ranks_share_a_pass_and_nothing_is_left_out(n: int, batch: int, world: int, shuffle: int) -> None:
    options = {"batch_size": batch, "world_size": world, "shuffle": shuffle, "endless": False}
    loaders = [make(n, rank=rank, **options) for rank in range(world)]
    seen = [take(loader) for loader in loaders]
    assert sorted(id for own in seen for ids, _ in own for id in ids) == list(range(n))
    assert sorted(record for own in seen for batch in records(own) for record in batch) == list(range(n))
    assert [take(loader) for loader in loaders] == seen


@quick
@given(n=st.integers(8, 40), batch=st.integers(1, 2), world=st.integers(1, 4), shuffle=st.integers(0, 20))
def test_in_training_ranks_keep_step(n: int, batch: int, world: int, shuffle: int) -> None:
    options = {"batch_size": batch, "world_size": world, "shuffle": shuffle}
    loaders = [make(n, rank=rank, **options) for rank in range(world)]
    passes = [iter(loader) for loader in loaders]
    seen = set()
    for _ in range(n // (batch * world)):
        states = []
        for batches, loader in zip(passes, loaders, strict=True):
            ids = next(batches).ids
            assert len(ids) == batch
            seen.update(ids.tolist())
            states.append(loader.state_dict())
        assert all(state == states[0] for state in states)
    assert len(seen) == n // (batch * world) * batch * world
    assert all(ids is not None for ids in (next(batches).ids for batches in passes))
    assert all(loader.state_dict()["epoch"] == 1 or n >= 2 * batch * world for loader in loaders)


def test_an_abandoned_loader_gives_its_workers_back_at_once() -> None:
    loader = make(11, 0, 1, 2, batch_size=1, num_workers=1, shuffle=6, world_size=3)
    take(loader, 4)
    gone = weakref.ref(loader)
    del loader
    assert gone() is None


def test_order_and_windows() -> None:
    assert records(take(make(9), 6)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [1, 2, 3], [4, 5, 6], [7, 8, 0]]
    loader = make(12, shuffle=6)
    ids = ids_of(loader, 8)
    assert [sorted(ids[i] + ids[i + 1]) for i in (0, 2)] == [list(range(6)), list(range(6, 12))]
    assert ids[:4] != [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert ids[:4] != ids[4:]
    assert [id - 6 for id in ids[2] + ids[3]] != ids[0] + ids[1]


def stream_read(loader: StreamLoader[int]) -> int:
    assert isinstance(loader.stream, Numbers)
    return loader.stream.read


def test_going_on_reads_no_more_than_the_window_again() -> None:
    before = make(10_000, shuffle=30)
    take(before, 1005)
    after = make(10_000, shuffle=30)
    after.load_state_dict(before.state_dict())
    take(after, 1)
    assert stream_read(after) <= 30


def test_a_state_is_plain_and_a_value_of_its_own() -> None:
    loader = make(11, shuffle=6)
    take(loader, 1)
    state = loader.state_dict()
    kept = copy.deepcopy(state)
    assert state == {"epoch": 0, "window": 0, "batch": 1, "stream": {"place": 0, "turn": 0}}
    take(loader, 4)
    assert state == kept
    with pytest.raises(ValueError, match=r"state of a stream .*'window'"):
        loader.load_state_dict({"epoch": 0, "batch": 1})


def test_broken_samples_are_left_out_and_listed(caplog: pytest.LogCaptureFixture) -> None:
    loader = make(7, 1, 3, 4, 5, endless=False)
    with caplog.at_level(logging.WARNING):
        assert ids_of(loader) == [[0, 2], [6]]
    assert loader.report().startswith("4 samples")
    assert "record-3: truncated" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_no_rank_goes_without_a_batch(workers: int) -> None:
    """The first rank's records 0 and 2 are broken, so it takes the first good one of the second rank's, 1 and 3."""
    loaders = [make(8, 0, 1, 2, batch_size=2, rank=rank, world_size=2, num_workers=workers) for rank in range(2)]
    assert [records(take(loader, 2)) for loader in loaders] == [[[3], [4, 6]], [[3], [5, 7]]]
    # All four are broken: every rank leaves the batch out.
    loaders = [make(8, 0, 1, 2, 3, batch_size=2, rank=rank, world_size=2, num_workers=workers) for rank in range(2)]
    assert [records(take(loader, 1)) for loader in loaders] == [[[4, 6]], [[5, 7]]]


@pytest.mark.parametrize("endless", [True, False])
def test_all_broken_is_an_error(endless: bool) -> None:
    with pytest.raises(DataError, match="no sample"):
        take(make(7, *range(7), endless=endless), 1)


def test_a_stream_that_makes_no_batch() -> None:
    with pytest.raises(DataError, match="6 samples"):
        take(make(5, world_size=2), 1)


def test_records_may_be_samples_and_the_length_is_not_known() -> None:
    class Tensors(Numbers):
        def __iter__(self) -> Iterator[Any]:
            return (torch.tensor([float(number)]) for number in Numbers.__iter__(self))

    loader: StreamLoader[Any] = StreamLoader(Tensors(3), collate, batch_size=2, endless=False)
    assert take(loader) == [([0, 1], [0.0, 1.0]), ([2], [2.0])]
    assert known_length(loader) is None
    assert known_length(Loader(Noisy(4), collate, FixedPlan(n=4, batch_size=2))) == 2
    assert loader.name(3) == "sample 3"


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"shuffle": -1}, {"rank": 1}])
def test_wrong_numbers(wrong: dict[str, int]) -> None:
    ((key, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{key}.*{value}"):
        make(**wrong)
