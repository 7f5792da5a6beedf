"""Batches in one random order: limits, completeness, resuming and ranks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.data import RandomOrderPlan

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=60)


def requests(plan: RandomOrderPlan, epoch: int, first: int = 0) -> list[tuple[int, ...]]:
    return [request.ids for request in plan.requests(epoch, first)]


@given(LENGTHS, st.integers(20, 60), st.integers(1, 8), st.integers(0, 3))
def test_every_sample_once_within_the_limits(lengths: list[int], tokens: int, samples: int, epoch: int) -> None:
    plan = RandomOrderPlan(lengths=torch.tensor(lengths), max_tokens=tokens, max_samples=samples, seed=3)
    found = requests(plan, epoch)
    assert sorted(id for ids in found for id in ids) == list(range(len(lengths)))
    assert len(found) == plan.num_batches(epoch)
    for ids in found:
        assert len(ids) <= samples
        assert len(ids) * max(lengths[id] for id in ids) <= tokens


def test_batches_are_the_same_in_all_epochs_in_another_order() -> None:
    plan = RandomOrderPlan(lengths=torch.arange(1, 41), max_samples=4, seed=1)
    first, second = requests(plan, 0), requests(plan, 1)
    assert first != second
    assert sorted(first) == sorted(second)
    other = RandomOrderPlan(lengths=torch.arange(1, 41), max_samples=4, seed=2)
    assert sorted(requests(other, 0)) != sorted(first)


def test_samples_of_any_length_are_together() -> None:
    plan = RandomOrderPlan(lengths=torch.arange(1, 401), max_samples=8, seed=0)
    spread = [max(ids) - min(ids) for ids in requests(plan, 0)]
    assert sum(spread) / len(spread) > 200


@given(LENGTHS.filter(lambda lengths: len(lengths) > 9), st.integers(1, 3), st.integers(0, 2))
def test_ranks_share_the_batches(lengths: list[int], world_size: int, first: int) -> None:
    whole = set(requests(RandomOrderPlan(lengths=torch.tensor(lengths), max_samples=2), 0))
    plans = [
        RandomOrderPlan(lengths=torch.tensor(lengths), max_samples=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    parts = [requests(plan, 0) for plan in plans]
    assert len({len(part) for part in parts}) == 1
    assert not plans[0].uneven
    flat = [ids for part in parts for ids in part]
    assert len(flat) == len(set(flat)) > len(whole) - world_size
    assert set(flat) <= whole
    assert requests(plans[0], 0, first) == parts[0][first:]


def test_replacements_are_no_longer() -> None:
    lengths = torch.arange(1, 301)
    plan = RandomOrderPlan(lengths=lengths, max_tokens=900, max_samples=8)
    found = [plan.replacement(200, epoch=0, attempt=attempt) for attempt in range(20)]
    assert all(id is not None and lengths[id] <= lengths[200] for id in found)
    assert len(set(found)) > 1


def test_too_few_samples() -> None:
    with pytest.raises(ValueError, match="fewer than 2 processes"):
        RandomOrderPlan(lengths=torch.tensor([3]), max_samples=4, world_size=2)
    with pytest.raises(ValueError, match="max_tokens=2"):
        RandomOrderPlan(lengths=torch.tensor([3]), max_tokens=2)
