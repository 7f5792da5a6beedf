"""Several sources in turn: the same draw on all ranks, each source's own order, and exact resuming."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import Counting, Noisy, collate, take

from d2v.core.data import Batches, FixedPlan, Loader, Mixture, StreamLoader

WEIGHTS = {"audio": 3.0, "text": 1.0, "vision": 2.0}


def read(record: int, id: int, *, seed: int, epoch: int) -> Any:
    return Noisy(7).get(record, seed=seed, epoch=epoch)


def sources(broken: set[int] | None = None, **options: Any) -> dict[str, Batches]:
    vision = FixedPlan(n=11, batch_size=3, **options)
    text = FixedPlan(n=5, batch_size=2, **options)
    return {
        "vision": Loader(Noisy(11, broken or ()), collate, vision),
        "audio": StreamLoader(Counting(), collate, read=read, batch_size=2, shuffle=4, **options),
        "text": Loader(Noisy(5, broken or ()), collate, text),
    }


def mixed(**options: Any) -> Mixture:
    return Mixture(sources(**options), WEIGHTS, seed=4)


def names(mixture: Mixture, count: int) -> list[str | None]:
    return [batch.modality for batch, _ in zip(mixture, range(count), strict=False)]


def test_frequencies_follow_the_weights() -> None:
    drawn = names(mixed(), 600)
    for name, weight in WEIGHTS.items():
        expected = 600 * weight / 6
        assert abs(drawn.count(name) - expected) < 5 * (expected * (1 - weight / 6)) ** 0.5
    assert names(Mixture(sources(), WEIGHTS, seed=5), 50) != drawn[:50]


def test_ranks_and_the_order_of_names_draw_the_same() -> None:
    drawn = names(mixed(), 60)
    assert drawn == names(mixed(rank=1, world_size=2), 60)
    turned = Mixture(dict(reversed(sources().items())), dict(reversed(WEIGHTS.items())), seed=4)
    assert drawn == names(turned, 60)


def test_each_source_gives_what_it_gives_alone() -> None:
    together: dict[str, list[Any]] = {name: [] for name in WEIGHTS}
    mixture = mixed()
    for batch, _ in zip(mixture, range(60), strict=False):
        own = [id // 3 for id in batch.ids.tolist()]
        together[batch.modality].append((own, batch.source.flatten().tolist()))
    for name, alone in sources().items():
        assert together[name] == take(alone, len(together[name]))


@settings(max_examples=10, deadline=None)
@given(stop=st.integers(0, 20))
def test_resuming_anywhere(stop: int) -> None:
    through = take(mixed(broken={2}), 20)
    before = mixed(broken={2})
    first = take(before, stop)
    state = before.state_dict()
    assert state["batch"] == stop
    after = mixed(broken={2})
    after.load_state_dict(state)
    assert first + take(after, 20 - stop) == through
    assert take(before, 20 - stop) == through[stop:]


def test_a_place_that_is_set_holds_after_an_abandoned_pass() -> None:
    mixture = mixed()
    through = take(mixture, 6)
    mixture = mixed()
    state = mixture.state_dict()
    abandoned = iter(mixture)
    next(abandoned)
    mixture.load_state_dict(state)
    next(abandoned)
    assert mixture.state_dict() == state
    assert take(mixture, 6) == through


def test_names_and_broken_samples_of_all_sources() -> None:
    mixture = mixed(broken={2})
    ids = {batch.modality: batch.ids for batch, _ in zip(mixture, range(60), strict=False)}
    assert all(ids[name] is not None for name in WEIGHTS)
    assert mixture.name(7 * 3 + 2) == "sample 7"
    assert mixture.broken == {"text: file-2": "bad disk", "vision: file-2": "bad disk"}
    lines = mixture.report().splitlines()
    assert lines[1::2] == ["  file-2: bad disk"] * 2
    assert [line.partition(" samples")[0] for line in lines[::2]] == ["text: 1 of 5", "vision: 1 of 11"]
    assert mixed().report() == ""


def test_wrong_sources_and_weights() -> None:
    with pytest.raises(ValueError, match=r"weights are for \['audio'\]"):
        Mixture(sources(), {"audio": 1.0})
    with pytest.raises(ValueError, match=r"weights are for \[\]"):
        Mixture({}, {})
    with pytest.raises(ValueError, match=r"weights.text=0"):
        Mixture(sources(), {**WEIGHTS, "text": 0})
    with pytest.raises(ValueError, match=r"sources .*'text'"):
        mixed().load_state_dict({"batch": 0, "sources": {"text": {}}})
    once = Loader(Noisy(4), collate, FixedPlan(n=4, batch_size=2), endless=False)
    with pytest.raises(ValueError, match=r"'text' .*ended"):
        take(Mixture({"text": once}, {"text": 1.0}), 9)
