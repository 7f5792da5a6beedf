"""Fixed batches: everything is a function of integers, nothing is lost or doubled, and size costs nothing."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from d2v.core.data import DataError, FixedPlan

quick = settings(max_examples=60, deadline=None)
SIZES = st.integers(1, 60)


@quick
@given(n=SIZES, batch=st.integers(1, 7), world=st.integers(1, 4), shuffle=st.booleans())
def test_all_ranks_together_see_each_sample_once(n: int, batch: int, world: int, shuffle: bool) -> None:
    plans = [
        FixedPlan(n=n, batch_size=batch, shuffle=shuffle, drop_last=False, rank=r, world_size=world)
        for r in range(world)
    ]
    dealt = [list(plan.requests(epoch=3)) for plan in plans]
    seen = [id for own in dealt for request in own for id in request.ids]
    assert sorted(seen) == list(range(n))
    assert [len(own) for own in dealt] == [plan.num_batches(3) for plan in plans]
    assert (len({len(own) for own in dealt}) > 1) == plans[0].uneven
    assert all(len(request.ids) <= batch for own in dealt for request in own)


@quick
@given(n=SIZES, batch=st.integers(1, 7), world=st.integers(1, 4))
def test_without_the_tail_all_batches_are_whole(n: int, batch: int, world: int) -> None:
    if n < batch * world:
        with pytest.raises(ValueError, match=f"^{n} samples make no batch of {batch}"):
            FixedPlan(n=n, batch_size=batch, world_size=world)
        return
    plans = [FixedPlan(n=n, batch_size=batch, rank=r, world_size=world) for r in range(world)]
    dealt = [list(plan.requests(epoch=0)) for plan in plans]
    assert {len(own) for own in dealt} == {n // (batch * world)}
    seen = [id for own in dealt for request in own for id in request.ids]
    assert len(set(seen)) == len(seen) == n // (batch * world) * batch * world
    # What one process with the whole batch sees, in the same step.
    alone = FixedPlan(n=n, batch_size=batch * world).requests(epoch=0)
    assert [sorted(r.ids) for r in alone] == [
        sorted(id for r in step for id in r.ids) for step in zip(*dealt, strict=True)
    ]


@quick
@given(n=st.integers(1, 9000), batch=st.integers(40, 2000), first=st.integers(0, 70))
def test_starting_later_gives_the_rest(n: int, batch: int, first: int) -> None:
    plan = FixedPlan(n=n, batch_size=batch, drop_last=False)
    assert list(plan.requests(2, first)) == list(plan.requests(2))[first:]


def test_epochs_have_orders_of_their_own() -> None:
    plan = FixedPlan(n=50, batch_size=50)
    assert len({next(plan.requests(epoch)).ids for epoch in range(20)}) == 20


class Largest(TorchDispatchMode):
    """Sees the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def from_afar(rank: int) -> list[int]:
    """The ids of the first batch and of the millionth."""
    plan = FixedPlan(n=10**10, batch_size=256, rank=rank, world_size=8)
    return [id for index in (0, 10**6) for id in next(plan.requests(0, index)).ids]


def test_ten_thousand_million_samples_start_at_once() -> None:
    begun = time.process_time()
    seen = from_afar(0)
    assert time.process_time() - begun < 0.5
    with Largest() as largest:
        seen += from_afar(7)
    assert largest.numel < 100_000
    assert len(set(seen)) == 4 * 256
    assert max(seen) > 9 * 10**9


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"n": 0}, DataError, "empty"),
        ({"batch_size": 0}, ValueError, "batch_size.*0"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank=2"),
    ],
)
def test_wrong_numbers(wrong: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FixedPlan(**{"n": 10, "batch_size": 2, **wrong})
