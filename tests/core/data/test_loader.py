"""The loader: the same batches whatever the workers and the interruptions, and no broken sample unseen."""

import logging
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from d2v.core.data import BrokenSampleError, DataError, Loader, sample_seed
from d2v.core.model import Batch

Seen = list[tuple[list[int], list[float]]]


class Noisy:
    """Samples whose value says id, seed and epoch; some are broken."""

    def __init__(self, n: int, broken: frozenset[int] = frozenset()) -> None:
        self.n = n
        self.broken = broken

    def __len__(self) -> int:
        return self.n

    def get(self, id: int, *, seed: int, epoch: int) -> Tensor:
        if id in self.broken:
            raise BrokenSampleError(f"file-{id}", "truncated") if id % 2 else OSError(5, "bad disk", f"file-{id}")
        generator = torch.Generator().manual_seed(sample_seed(seed=seed, epoch=epoch, id=id))
        return torch.rand(1, generator=generator)


def collate(samples: list[Tensor], ids: Tensor) -> Batch:
    return Batch(source=torch.stack(samples), ids=ids)


def make(n: int = 11, broken: frozenset[int] = frozenset(), **options: int) -> Loader[Tensor]:
    return Loader(Noisy(n, broken), collate, **{"batch_size": 3, "seed": 5, **options})  # type: ignore[arg-type]


def take(loader: Loader[Tensor], count: int | None) -> Seen:
    return [(batch.ids.tolist(), batch.source.flatten().tolist()) for batch in islice(loader, count)]  # type: ignore[union-attr]


BROKEN = frozenset({2, 5})


@pytest.mark.parametrize("broken", [frozenset(), BROKEN])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_resuming_change_nothing(workers: int, broken: frozenset[int]) -> None:
    through = take(make(broken=broken), 8)
    loader = make(broken=broken, num_workers=workers)
    first = take(loader, 4)
    assert loader.position == (1, 1)
    resumed = make(broken=broken, num_workers=workers)
    resumed.position = loader.position
    assert first + take(resumed, 4) == through
    # The same loader goes on where it stopped: persistent workers forget what they had read ahead.
    assert take(loader, 4) == through[4:]


@given(stop=st.integers(0, 10), n=st.integers(3, 12), broken=st.sets(st.integers(0, 11), max_size=2))
def test_resuming_anywhere(stop: int, n: int, broken: set[int]) -> None:
    through = take(make(n, frozenset(broken)), 10)
    before = make(n, frozenset(broken))
    first = take(before, stop)
    after = make(n, frozenset(broken))
    after.position = before.position
    assert first + take(after, 10 - stop) == through


def test_iterating_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    take(make(), 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_pass_sees_all_in_order_and_starts_again(workers: int) -> None:
    loader = make(endless=False, num_workers=workers)
    ids = [id for batch in loader for id in batch.ids.tolist()]  # type: ignore[union-attr]
    assert ids == list(range(11))
    assert loader.position == (0, 0)
    assert take(loader, 1) == take(loader, None)[:1]
    loader.position = (0, 3)
    assert [ids for ids, _ in take(loader, None)] == [[9, 10]]


def test_training_replaces_what_is_broken(caplog: pytest.LogCaptureFixture) -> None:
    loader = make(broken=BROKEN)
    with caplog.at_level(logging.WARNING):
        seen = take(loader, 12)
    assert all(len(ids) == 3 and not BROKEN & set(ids) for ids, _ in seen)
    assert loader.broken == {"file-2": "bad disk", "file-5": "truncated"}
    assert loader.report().splitlines() == [
        "2 of 11 samples could not be read:",
        "  file-2: bad disk",
        "  file-5: truncated",
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_leaves_out_what_is_broken(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    loader = make(7, frozenset({1, 3, 4, 5}), endless=False, num_workers=workers)
    with caplog.at_level(logging.WARNING):
        assert [ids for ids, _ in take(loader, None)] == [[0, 2], [6]]
    assert "4 of 7 samples could not be read:\n  file-1: truncated" in caplog.text


@pytest.mark.parametrize("endless", [True, False])
def test_all_broken_is_an_error(endless: bool) -> None:
    with pytest.raises(DataError, match=r"no sample can be read(?s:.*)file-0: bad disk"):
        take(make(4, frozenset(range(4)), endless=endless), 1)


def test_no_samples() -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        make(0)


def test_ranks_that_would_wait_for_each_other() -> None:
    for rank in (0, 1):
        with pytest.raises(ValueError, match=r"7 samples give some of 2 processes a batch more .* drop_last=True"):
            make(7, rank=rank, world_size=2, drop_last=False)


@pytest.mark.parametrize("position", [(-1, 0), (0, 4), (0, -1)])
def test_a_position_beyond_the_epoch(position: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"position must be \(epoch, batch of 0 to 3\), not"):
        make().position = position


def test_names_are_those_of_the_data_set_if_it_has_any() -> None:
    class Named(Noisy):
        def name(self, id: int) -> str:
            return f"number {id}"

    named = Loader(Named(4), collate, batch_size=2)
    assert named.name(3) == "number 3"
    plain = Loader(Noisy(4), collate, batch_size=2)
    assert plain.name(3) == "sample 3"
