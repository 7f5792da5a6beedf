"""Order and dealing out: everything is a function of integers, and nothing is lost or doubled."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.data import Plan, epoch_order, few_of_each, sample_seed

SIZES = st.integers(1, 60)


@given(n=SIZES, seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_every_order_is_a_permutation_and_repeats(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed=seed, epoch=epoch)
    assert order.sort().values.tolist() == list(range(n))
    assert order.tolist() == epoch_order(n, seed=seed, epoch=epoch).tolist()


def test_seeds_and_epochs_give_orders_of_their_own() -> None:
    orders = {tuple(epoch_order(50, seed=s, epoch=e).tolist()) for s in range(4) for e in range(4)}
    assert len(orders) == 16
    assert len({sample_seed(seed=s, epoch=e, id=i) for s in range(4) for e in range(4) for i in range(4)}) == 64


@given(n=SIZES, batch=st.integers(1, 7), world=st.integers(1, 4), shuffle=st.booleans())
def test_all_ranks_together_see_each_sample_once(n: int, batch: int, world: int, shuffle: bool) -> None:
    plans = [
        Plan(n=n, batch_size=batch, shuffle=shuffle, drop_last=False, rank=r, world_size=world) for r in range(world)
    ]
    fractions = [list(plan.requests(epoch=3)) for plan in plans]
    seen = [id for fraction in fractions for request in fraction for id in request.ids]
    assert sorted(seen) == list(range(n))
    assert [len(fraction) for fraction in fractions] == [plan.num_batches for plan in plans]
    assert (len({len(fraction) for fraction in fractions}) > 1) == plans[0].uneven


@given(n=SIZES, batch=st.integers(1, 7), world=st.integers(1, 4))
def test_without_the_tail_all_batches_are_whole(n: int, batch: int, world: int) -> None:
    if n < batch * world:
        with pytest.raises(ValueError, match=f"^{n} samples make no batch of {batch}"):
            Plan(n=n, batch_size=batch, world_size=world)
        return
    plans = [Plan(n=n, batch_size=batch, rank=r, world_size=world) for r in range(world)]
    fractions = [list(plan.requests(epoch=0)) for plan in plans]
    assert {len(fraction) for fraction in fractions} == {n // (batch * world)}
    seen = [id for fraction in fractions for request in fraction for id in request.ids]
    assert len(set(seen)) == len(seen) == n // (batch * world) * batch * world
    # What one process with the whole batch sees, in the same step.
    alone = Plan(n=n, batch_size=batch * world).requests(epoch=0)
    assert [sorted(r.ids) for r in alone] == [
        sorted(id for r in step for id in r.ids) for step in zip(*fractions, strict=True)
    ]


@given(n=SIZES, first=st.integers(0, 70))
def test_starting_later_gives_the_rest(n: int, first: int) -> None:
    plan = Plan(n=n, batch_size=1)
    assert list(plan.requests(2, first)) == list(plan.requests(2))[first:]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"rank": 2, "world_size": 2}, "rank must be from 0 to 1 of 2, not 2"),
    ],
)
def test_wrong_numbers(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**{"n": 10, "batch_size": 2, **wrong})


def test_few_of_each_class() -> None:
    labels = torch.tensor([0, 2, 0, 2, 2, -1, 0, 0])
    few = few_of_each(labels, 2, seed=0)
    assert labels[few].bincount().tolist() == [2, 0, 2]
    assert few.tolist() == sorted(set(few.tolist()))
    assert torch.equal(few, few_of_each(labels, 2, seed=0))
    assert set(few.tolist()) < set(few_of_each(labels, 3, seed=0).tolist())
    assert len({tuple(few_of_each(labels, 2, seed=seed).tolist()) for seed in range(20)}) > 5
    with pytest.raises(ValueError, match="class 2 has 3 samples, fewer than 4"):
        few_of_each(labels, 4, seed=0)
    assert few_of_each(torch.tensor([-1]), 1, seed=0).tolist() == []
