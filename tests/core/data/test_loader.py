"""The loader: the same batches with any workers and interruptions, and every broken sample is reported."""

import gc
import logging
import os
import re
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loading import Noisy, collate, ids_of, noise, take
from torch import Tensor

from d2v.core.data import BudgetPlan, DataError, FixedPlan, Loader, Plan, Request


def make(
    n: int = 11, broken: Iterable[int] = (), *, endless: bool = True, num_workers: int = 0, **options: Any
) -> Loader[Tensor]:
    settings = {"batch_size": 3, "seed": 5, "shuffle": endless, "drop_last": endless, **options}
    return Loader(Noisy(n, broken), collate, FixedPlan(n=n, **settings), endless=endless, num_workers=num_workers)


def resumed(loader: Loader[Tensor], state: dict[str, Any]) -> Loader[Tensor]:
    loader.load_state_dict(state)
    return loader


BROKEN = frozenset({2, 5})
quick = settings(max_examples=20, deadline=None)


@pytest.mark.parametrize("broken", [frozenset(), BROKEN])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_resuming_change_nothing(workers: int, broken: frozenset[int]) -> None:
    through = take(make(broken=broken), 8)
    loader = make(broken=broken, num_workers=workers)
    first = take(loader, 4)
    assert loader.state_dict() == {"epoch": 1, "batch": 1}
    assert first + take(resumed(make(broken=broken, num_workers=workers), loader.state_dict()), 4) == through
    # The same loader goes on where it stopped: persistent workers forget what they had read ahead.
    assert take(loader, 4) == through[4:]


@quick
@given(stop=st.integers(0, 10), n=st.integers(3, 12), broken=st.sets(st.integers(0, 11), max_size=2))
def test_resuming_anywhere(stop: int, n: int, broken: set[int]) -> None:
    through = take(make(n, broken), 10)
    before = make(n, broken)
    first = take(before, stop)
    assert first + take(resumed(make(n, broken), before.state_dict()), 10 - stop) == through


def test_iterating_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    take(make(), 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("endless", [True, False])
def test_an_abandoned_loader_gives_its_workers_back_at_once(endless: bool) -> None:
    """In a cycle of references it would not: its queues would be closed before the workers are stopped."""
    loader = make(broken=BROKEN, num_workers=1, endless=endless)
    take(loader, 2)
    begun = time.monotonic()
    gone = weakref.ref(loader)
    del loader
    assert gone() is None
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize("workers", [0, 2])
def test_one_pass_sees_all_in_order_and_starts_again(workers: int) -> None:
    loader = make(endless=False, num_workers=workers)
    assert [id for ids in ids_of(loader) for id in ids] == list(range(11))
    assert loader.state_dict() == {"epoch": 0, "batch": 0}
    assert take(loader, 1) == take(loader)[:1]
    loader.load_state_dict({"epoch": 0, "batch": 3})
    assert ids_of(loader) == [[9, 10]]
    assert len(ids_of(loader)) == 4


@pytest.mark.parametrize("endless", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_place_that_is_set_holds_after_an_abandoned_pass(endless: bool, workers: int) -> None:
    loader = make(endless=endless, num_workers=workers)
    through = take(loader, 4)
    loader.load_state_dict({"epoch": 0, "batch": 0})
    abandoned = iter(loader)
    next(abandoned)
    assert loader.state_dict() == {"epoch": 0, "batch": 1}
    loader.load_state_dict({"epoch": 0, "batch": 2})
    abandoned.close()  # type: ignore[attr-defined]  # a generator, closed at the latest when it is collected
    assert loader.state_dict() == {"epoch": 0, "batch": 2}
    again = iter(loader)
    assert loader.state_dict() == {"epoch": 0, "batch": 2}
    assert take(again, 2) == through[2:]


@pytest.mark.parametrize("endless", [True, False])
def test_a_place_that_is_set_holds_while_an_older_pass_goes_on(endless: bool) -> None:
    loader = make(endless=endless)
    through = take(loader, 4)
    loader.load_state_dict({"epoch": 0, "batch": 0})
    older = iter(loader)
    next(older)
    loader.load_state_dict({"epoch": 0, "batch": 1})
    take(older, 3)
    next(older, None)
    assert loader.state_dict() == {"epoch": 0, "batch": 1}
    assert take(loader, 2) == through[1:3]


def test_a_pass_that_was_abandoned_can_be_gone_on_with_by_its_state() -> None:
    loader = make(endless=False)
    through = take(loader)
    first = take(loader, 2)
    state = loader.state_dict()
    assert take(loader) == through
    assert first + take(resumed(loader, state)) == through


@pytest.mark.parametrize("workers", [0, 1])
def test_an_older_pass_takes_nothing_from_a_newer_one(workers: int) -> None:
    loader = make(num_workers=workers)
    older = iter(loader)
    next(older)
    newer = iter(loader)
    assert take(newer, 1) == take(make(), 2)[1:]
    with pytest.raises(RuntimeError, match="another pass"):
        next(older)
    assert take(newer, 1) == take(make(), 3)[2:]
    assert loader.state_dict() == {"epoch": 1, "batch": 0}


@pytest.mark.parametrize("place", [(-1, 0), (0, 4), (0, -1)])
def test_a_place_beyond_the_epoch(place: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"epoch {place[0]}, batch {place[1]}"):
        make().load_state_dict({"epoch": place[0], "batch": place[1]})


class OfThisProcess:
    """Garbage, since it is in a cycle, whose destructor ends other processes: gloo's process groups do that."""

    def __init__(self) -> None:
        self.cycle, self.pid = self, os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.pid:
            os.abort()


class Collecting(Noisy):
    """Each sample frees what garbage there is."""

    def get(self, id: int, *, seed: int, epoch: int) -> Tensor:
        gc.collect()
        return super().get(id, seed=seed, epoch=epoch)


def test_a_worker_frees_nothing_that_it_inherited() -> None:
    gc.disable()
    try:
        OfThisProcess()
        loader = Loader(Collecting(11), collate, FixedPlan(n=11, batch_size=3, seed=5), num_workers=1)
        take(loader, 2)
        assert not gc.get_freeze_count()
    finally:
        gc.enable()
        gc.collect()


class Growing:
    """A plan with one more batch of one sample in every epoch."""

    n, seed, uneven, units = 9, 0, False, 1

    def num_batches(self, epoch: int, skip: int = 0) -> int:
        return epoch + 1

    def requests(self, epoch: int, first: int = 0, skip: int = 0) -> Iterator[Request]:
        for index in range(first, self.num_batches(epoch)):
            yield Request(epoch=epoch, index=index, ids=(index,))

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int | None:
        return None


def test_epochs_may_differ_in_length() -> None:
    plan: Plan = Growing()
    loader = Loader(Noisy(9), collate, plan)
    assert ids_of(loader, 6) == [[0], [0], [1], [0], [1], [2]]
    assert loader.state_dict() == {"epoch": 3, "batch": 0}
    assert len(loader) == 4
    loader.load_state_dict({"epoch": 2, "batch": 3})
    assert ids_of(loader, 2) == [[0], [1]]
    with pytest.raises(ValueError, match="epoch 1, batch 3"):
        loader.load_state_dict({"epoch": 1, "batch": 3})


def test_training_replaces_what_is_broken(caplog: pytest.LogCaptureFixture) -> None:
    loader = make(broken=BROKEN)
    with caplog.at_level(logging.WARNING):
        seen = ids_of(loader, 12)
    assert all(len(ids) == 3 and not BROKEN & set(ids) for ids in seen)
    assert loader.broken == {"file-2": "bad disk", "file-5": "truncated"}
    first, *others = loader.report().splitlines()
    assert "2 of 11" in first
    assert others == ["  file-2: bad disk", "  file-5: truncated"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_leaves_out_what_is_broken(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    loader = make(7, {1, 3, 4, 5}, endless=False, num_workers=workers)
    with caplog.at_level(logging.WARNING):
        assert ids_of(loader) == [[0, 2], [6]]
    assert set(loader.broken) == {"file-1", "file-3", "file-4", "file-5"}
    assert loader.report() in caplog.text


def test_half_of_a_large_batch_is_broken() -> None:
    loader = make(2000, range(0, 2000, 2), batch_size=1000)
    (ids,) = ids_of(loader, 1)
    assert len(ids) == 1000
    assert all(id % 2 for id in ids)


@quick
@given(
    lengths=st.lists(st.integers(17, 50), min_size=6, max_size=60),  # two batches at least
    broken=st.sets(st.integers(0, 59), max_size=30),
    world=st.integers(1, 2),
)
@example(lengths=[25] * 8 + [90] * 5, broken={3}, world=1)  # longer ones must not replace them
def test_stand_ins_keep_the_budget_and_no_rank_goes_without_a_batch(
    lengths: list[int], broken: set[int], world: int
) -> None:
    broken = {id for id in broken if id < len(lengths)}
    if len(broken) == len(lengths):
        return
    for rank in range(world):
        plan = BudgetPlan(lengths=torch.tensor(lengths), max_tokens=100, rank=rank, world_size=world)
        loader = Loader(Noisy(len(lengths), broken), collate, plan)
        through = take(loader, plan.num_batches(0))
        for (ids, _), request in zip(through, plan.requests(0), strict=True):
            assert 1 <= len(ids) <= len(request.ids)
            assert len(ids) * max(lengths[id] for id in ids) <= 100
            assert not broken & set(ids)
        later = len(through) // 2
        loader.load_state_dict({"epoch": 0, "batch": later})
        assert take(loader, len(through) - later) == through[later:]


class Failing(Noisy):
    """Some samples end in unexpected errors."""

    def __init__(self, n: int, failing: dict[int, BaseException]) -> None:
        super().__init__(n)
        self.failing = failing

    def get(self, id: int, *, seed: int, epoch: int) -> Tensor:
        if id in self.failing:
            raise self.failing[id]
        return noise(id, seed=seed, epoch=epoch)


@pytest.mark.parametrize("endless", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_any_error_of_one_sample_is_counted(workers: int, endless: bool) -> None:
    samples = Failing(6, {1: ZeroDivisionError("division\nby zero"), 4: KeyError("label")})
    plan = FixedPlan(n=6, batch_size=2, drop_last=endless)
    loader = Loader(samples, collate, plan, endless=endless, num_workers=workers)
    seen = {id for ids in ids_of(loader, 12) for id in ids}
    assert seen <= {0, 2, 3, 5}
    assert sorted(loader.broken) == ["sample 1", "sample 4"]
    assert re.fullmatch(r"ZeroDivisionError: .*test_loader.py, line \d+\)", loader.broken["sample 1"])
    assert "KeyError: 'label'" in loader.broken["sample 4"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_fault_of_a_sample_ends_the_run(error: type[BaseException]) -> None:
    plan = FixedPlan(n=6, batch_size=2)
    with pytest.raises(error):
        take(Loader(Failing(6, dict.fromkeys(range(6), error())), collate, plan), 1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("endless", [True, False])
def test_an_error_in_the_program_ends_the_run_and_is_told_once(workers: int, endless: bool) -> None:
    class Wrong(Noisy):
        def get(self, id: int, *, seed: int, epoch: int) -> Tensor:
            return self.nose(id)  # type: ignore[attr-defined, no-any-return]

    loader = Loader(Wrong(300), collate, FixedPlan(n=300, batch_size=2), endless=endless, num_workers=workers)
    with pytest.raises(DataError, match=r"tried .*fail.*AttributeError.*nose.*line \d+") as message:
        take(loader, 151)
    assert "\n" not in str(message.value)


@pytest.mark.parametrize("endless", [True, False])
def test_all_broken_is_an_error(endless: bool) -> None:
    with pytest.raises(DataError, match=r"no sample(?s:.*)file-0"):
        take(make(4, range(4), endless=endless), 1)


def test_a_place_at_the_end_is_no_error_where_something_was_broken() -> None:
    loader = make(4, {1}, endless=False)
    take(loader)
    loader.load_state_dict({"epoch": 0, "batch": 2})
    assert take(loader) == []


def test_a_plan_for_other_data_or_for_ranks_that_would_wait_for_each_other() -> None:
    with pytest.raises(ValueError, match="plan is for 4"):
        Loader(Noisy(5), collate, FixedPlan(n=4, batch_size=2))
    for rank in (0, 1):
        with pytest.raises(ValueError, match="drop_last=True"):
            make(7, rank=rank, world_size=2, drop_last=False)


def test_names_are_those_of_the_data_set_if_it_has_any() -> None:
    class Named(Noisy):
        def name(self, id: int) -> str:
            return f"number {id}"

    assert Loader(Named(4), collate, FixedPlan(n=4, batch_size=2)).name(3) == "number 3"
