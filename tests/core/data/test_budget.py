"""Batches within a budget: the published rule to the letter, and nothing lost, doubled or over it."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v.core.data import BudgetPlan, DataError
from d2v.core.data.budget import bucket_limits, cut

PUBLISHED = json.loads((Path(__file__).parent / "data" / "batching.json").read_text())
quick = settings(max_examples=60, deadline=None)
LENGTHS = st.lists(st.integers(0, 50), min_size=1, max_size=80)


def batches_of(lengths: list[int], **limits: int | None) -> list[list[int]]:
    """Places by batch."""
    runs = cut(torch.tensor(lengths), **limits)
    starts = [start for run, after in pairwise(runs) for start in range(run.start, after.start, run.size)]
    return [list(range(start, end)) for start, end in pairwise([*starts, len(lengths)])]


def by_scanning(lengths: list[int], max_tokens: int, max_samples: int, multiple: int) -> list[list[int]]:
    """The published rule, sample by sample: a committed batch and a pending tail."""
    batches: list[list[int]] = []
    committed: list[int] = []
    tail: list[int] = []

    def fits(places: list[int]) -> bool:
        return len(places) <= max_samples and len(places) * max(lengths[i] for i in places) <= max_tokens

    for place in range(len(lengths)):
        if fits([*committed, *tail, place]):
            tail.append(place)
            joint = len(committed) + len(tail)
            if joint < multiple or joint % multiple == 0:
                committed, tail = committed + tail, []
            continue
        batches.append(committed)
        if fits([*tail, place]):
            committed, tail = [*tail, place], []
        else:
            batches.append(tail)
            committed, tail = [place], []
    return [batch for batch in [*batches, committed, tail] if batch]


@pytest.mark.parametrize("case", PUBLISHED["batch_by_size"])
def test_published_batches(case: dict[str, Any]) -> None:
    """The original drops a last batch that is no multiple; we keep it."""
    limits = case["kwargs"]
    found = batches_of(
        case["sizes"],
        max_tokens=limits.get("max_tokens"),
        max_samples=limits.get("max_sentences"),
        multiple=limits.get("required_batch_size_multiple", 1),
    )
    assert found == case["batches"] + case["dropped_tail"]


@quick
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    stretch=st.integers(1, 20),
    max_tokens=st.integers(12, 100),
    max_samples=st.integers(1, 20),
    multiple=st.integers(1, 9),
)
def test_the_rule_in_any_order(
    lengths: list[int], stretch: int, max_tokens: int, max_samples: int, multiple: int
) -> None:
    lengths = [length for length in lengths for _ in range(1 + (length * stretch) % 23)]
    found = batches_of(lengths, max_tokens=max_tokens, max_samples=max_samples, multiple=multiple)
    assert found == by_scanning(lengths, max_tokens, max_samples, multiple)


@pytest.mark.parametrize("case", PUBLISHED["buckets"])
def test_published_buckets(case: dict[str, Any]) -> None:
    limits = bucket_limits(torch.tensor(case["sizes"]).sort().values, case["num_buckets"])
    assert limits.tolist() == case["buckets"]
    assert limits[torch.bucketize(torch.tensor(case["sizes"]), limits)].tolist() == case["bucketed"]


@pytest.mark.parametrize("case", PUBLISHED["audio_order"])
def test_published_order(case: dict[str, Any]) -> None:
    """The longest first; among equals any order, as random numbers are not the original's."""
    clipped = case["num_tokens"]
    plan = BudgetPlan(lengths=torch.tensor(clipped), max_samples=len(clipped))
    (request,) = plan.requests(epoch=0)
    assert [clipped[id] for id in request.ids] == [clipped[id] for id in case["order"]]


@pytest.mark.parametrize("case", PUBLISHED["epoch_shuffle"])
def test_published_dealing(case: dict[str, Any]) -> None:
    """Rank r takes every R-th batch of the epoch's order, from the r-th on."""
    n, world = len(case["order"]), case["num_shards"]
    numbers = [
        [plan_ids[0] for plan_ids in dealt(torch.arange(1, n + 1), rank=r, world=world, max_samples=1)]
        for r in range(world)
    ]
    alone = [ids[0] for ids in dealt(torch.arange(1, n + 1), max_samples=1)]
    places = [[case["order"].index(batch) for batch in shard if batch is not None] for shard in case["shards"]]
    assert numbers == [[alone[place] for place in shard] for shard in places]


def dealt(
    lengths: torch.Tensor, *, rank: int = 0, world: int = 1, epoch: int = 0, **options: Any
) -> list[tuple[int, ...]]:
    options = {"drop_last": False, **options}
    plan = BudgetPlan(lengths=lengths, rank=rank, world_size=world, **options)
    requests = list(plan.requests(epoch))
    assert len(requests) == plan.num_batches(epoch)
    assert [request.index for request in requests] == list(range(len(requests)))
    return [request.ids for request in requests]


@quick
@given(
    lengths=LENGTHS,
    max_tokens=st.none() | st.integers(50, 300),
    max_samples=st.none() | st.integers(1, 9),
    multiple=st.integers(1, 4),
    num_buckets=st.integers(0, 6),
    world=st.integers(1, 4),
    shuffle=st.booleans(),
)
def test_all_ranks_together_see_each_sample_once_within_the_budget(
    lengths: list[int],
    max_tokens: int | None,
    max_samples: int | None,
    multiple: int,
    num_buckets: int,
    world: int,
    shuffle: bool,
) -> None:
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "max_samples": 20 if max_samples is None and max_tokens is None else max_samples,
        "multiple": multiple,
        "num_buckets": num_buckets,
        "shuffle": shuffle,
    }
    found = [dealt(torch.tensor(lengths), rank=r, world=world, epoch=2, **options) for r in range(world)]
    batches = [ids for own in found for ids in own]
    assert sorted(id for ids in batches for id in ids) == list(range(len(lengths)))
    for ids in batches:
        assert max_tokens is None or len(ids) * max(lengths[id] for id in ids) <= max_tokens
        assert len(ids) <= (options["max_samples"] or len(lengths))
    plan = BudgetPlan(lengths=torch.tensor(lengths), world_size=world, drop_last=False, **options)
    assert plan.uneven == (len({len(own) for own in found}) > 1)
    if len(batches) >= world:
        trained = [dealt(torch.tensor(lengths), rank=r, world=world, drop_last=True, **options) for r in range(world)]
        assert {len(own) for own in trained} == {len(batches) // world}
        seen = [id for own in trained for ids in own for id in ids]
        assert len(set(seen)) == len(seen)


@quick
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=300), first=st.integers(0, 70))
def test_starting_later_gives_the_rest(lengths: list[int], first: int) -> None:
    plan = BudgetPlan(lengths=torch.tensor(lengths), max_tokens=100, num_buckets=3)
    assert list(plan.requests(2, first)) == list(plan.requests(2))[first:]


def test_epochs_mix_samples_and_batches() -> None:
    lengths = torch.randint(1, 100, (400,), generator=torch.Generator().manual_seed(0))
    epochs = [dealt(lengths, epoch=epoch, max_tokens=800, num_buckets=4) for epoch in range(4)]
    assert len({frozenset(batches[0]) for batches in epochs}) == 4
    assert len({frozenset(map(frozenset, batches)) for batches in epochs}) == 4
    assert epochs[0] == dealt(lengths, epoch=0, max_tokens=800, num_buckets=4)
    assert epochs[0] != dealt(lengths, epoch=0, max_tokens=800, num_buckets=4, seed=1)
    unmixed = [dealt(lengths, epoch=epoch, max_tokens=800, shuffle=False) for epoch in range(2)]
    assert unmixed[0] == unmixed[1]
    assert unmixed[0][0][0] == int(lengths.argmax())


@quick
@given(lengths=LENGTHS, id=st.integers(0, 79), num_buckets=st.integers(0, 4))
def test_a_stand_in_counts_no_longer(lengths: list[int], id: int, num_buckets: int) -> None:
    id = id % len(lengths)
    plan = BudgetPlan(lengths=torch.tensor(lengths), max_tokens=50, num_buckets=num_buckets)
    limits = sorted(set(lengths))
    if num_buckets:
        limits = bucket_limits(torch.tensor(lengths).sort().values, num_buckets).tolist()
    most = min(limit for limit in limits if limit >= lengths[id])
    found = [plan.replacement(id, epoch=1, attempt=attempt) for attempt in range(20)]
    assert found == [plan.replacement(id, epoch=1, attempt=attempt) for attempt in range(20)]
    allowed = [other for other, length in enumerate(lengths) if length <= most]
    assert set(found) <= {*allowed} if len(allowed) > 1 else found == [None] * 20


def test_stand_ins_are_about_as_long_and_differ() -> None:
    lengths = torch.arange(1, 5001)
    plan = BudgetPlan(lengths=lengths, max_tokens=5000)
    found = [plan.replacement(3999, epoch=0, attempt=attempt) for attempt in range(50)]
    assert all(id is not None and 3899 < id <= 3999 for id in found)
    assert len(set(found)) > 20


def test_four_bytes_a_sample() -> None:
    lengths = torch.randint(1, 1000, (10**5,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    plan = BudgetPlan(lengths=lengths, max_tokens=20_000, max_samples=512, multiple=8)
    assert plan.lengths.data_ptr() == lengths.data_ptr()
    held = [value for value in vars(plan).values() if isinstance(value, torch.Tensor) and value is not plan.lengths]
    assert sum(value.untyped_storage().nbytes() for value in held) < 4 * 10**5 + 20 * 1000
    assert sum(len(value) for value in vars(plan).values() if isinstance(value, list | tuple)) < 200


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"lengths": torch.tensor([], dtype=torch.int32)}, DataError, "empty"),
        ({"lengths": torch.tensor([0.5])}, ValueError, "integers"),
        ({"lengths": torch.tensor([3, 11])}, ValueError, "sample 1 has length 11, above max_tokens=10"),
        ({"lengths": torch.tensor([3, -1])}, ValueError, "sample 1 has length -1"),
        ({"max_tokens": None}, ValueError, "max_tokens or max_samples"),
        ({"max_samples": 0}, ValueError, "max_samples.*0"),
        ({"multiple": 0}, ValueError, "multiple.*0"),
        ({"num_buckets": -1}, ValueError, "num_buckets.*-1"),
        ({"world_size": 2}, ValueError, "make 1 batches, fewer than 2 processes"),
        ({"rank": 1}, ValueError, "rank=1"),
    ],
)
def test_wrong_values(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BudgetPlan(**{"lengths": torch.tensor([3, 2]), "max_tokens": 10, **wrong})
