"""Identities of data sets: equal where the samples are, counted where some are shared, and whole after a round trip."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.data import FixedPlan, Identity, Loader, Mixture, StreamLoader, identity_of, name_keys
from d2v.core.data import identity as module
from d2v.core.data.seen import Seen, seen_files, seen_from_plain, seen_to_plain
from d2v.core.model import Batch

NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), unique=True, max_size=40)


def collate(samples: list[int], ids: torch.Tensor) -> Batch:
    return Batch(source=torch.tensor(samples)[:, None].float(), ids=ids)


class Numbers:
    """Samples by number; with names they say who they are."""

    def __init__(self, count: int, names: str | None = None) -> None:
        self.count = count
        if names is not None:
            self.identity = lambda: Identity.of(name_keys(f"{names}{i}" for i in range(count)))

    def __len__(self) -> int:
        return self.count

    def get(self, id: int, *, seed: int, epoch: int) -> int:
        return id


class Records:
    """A stream of four records."""

    def __iter__(self):
        yield from range(4)

    def state_dict(self) -> dict[str, int]:
        return {"place": 0}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def loader(samples: Numbers) -> Loader[int]:
    return Loader(samples, collate, FixedPlan(n=len(samples), batch_size=2))


@given(ours=NAMES, theirs=NAMES)
def test_shared_samples_are_counted(ours: list[str], theirs: list[str]) -> None:
    one, other = Identity.of(name_keys(ours)), Identity.of(name_keys(theirs))
    assert one.shared(other) == len({*map(key, ours)} & {*map(key, theirs)})
    assert (one == other) == ([*map(key, ours)] == [*map(key, theirs)])


def key(name: str) -> int:
    return int(name_keys([name])[0])


def test_accents_are_one_letter_on_every_file_system() -> None:
    assert key("caf\u00e9.png") == key("cafe\u0301.png") != key("cafe.png")
    assert key("\udce9.png") != key("e.png")  # a name that is no UTF-8


def test_of_large_sets_the_shared_samples_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 1000)
    all_of_them = name_keys(f"{i}.png" for i in range(20_000))
    whole, half, none = Identity.of(all_of_them), Identity.of(all_of_them[:10_000]), Identity.of(name_keys("abc"))
    assert whole.keys is not None
    assert len(whole.keys) == 1000
    assert whole.shared(half) == pytest.approx(10_000, rel=0.1)
    assert half.shared(whole) == 10_000
    assert none.shared(whole) == 0


def test_samples_of_other_sizes_are_others() -> None:
    names = name_keys(f"{i}.png" for i in range(100))
    plain, same, other = (Identity.of(names, lambda places, more=more: 1000 + places + more) for more in (0, 0, 1))
    assert plain.shared(same) == 100
    assert plain.shared(other) == 0
    assert plain.shared(Identity.of(names)) == 100, "where sizes are not known names are all there is"
    unread = Identity.of(names, lambda places: torch.full_like(places, -1))
    assert plain.shared(unread) == 100


def test_round_trip_of_what_a_model_has_seen(tmp_path: Path) -> None:
    one = Identity.of(name_keys("abcd"), lambda places: places + 10)
    seen = (
        Seen(how="pretrain", modality="vision", split="train", identity=one),
        Seen(how="finetune", modality="vision", split="train", identity=Identity(samples=None, digest="x")),
    )
    back = seen_from_plain(seen_to_plain(seen), seen_files(seen))
    assert back == seen
    assert back[0].identity.shared(Identity.of(name_keys("cdef"))) == 2
    assert back[0].identity.shared(Identity.of(name_keys("abcd"), lambda places: places)) == 0


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8, b"\x05" + b"\0" * 15])
def test_files_of_keys_that_are_cut_off(content: bytes) -> None:
    values = {"samples": 3, "digest": "x"}
    if not content:
        assert Identity.read(values, content).keys is None
        return
    with pytest.raises(ValueError, match="truncated"):
        Identity.read(values, content)


@pytest.mark.parametrize("values", [{}, {"samples": "3", "digest": ""}, {"samples": 3, "digest": None}])
def test_values_that_are_no_identity(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="digest"):
        Identity.read(values)


def test_loaders_streams_and_mixtures_say_what_they_are_of() -> None:
    named, other, bare = loader(Numbers(4, "a")), loader(Numbers(4, "b")), loader(Numbers(4))
    assert identity_of(named) != identity_of(other)
    assert identity_of(bare) == Identity(samples=4)
    assert identity_of(StreamLoader(Records(), collate, batch_size=2)) is None
    assert identity_of(object()) is None
    weights = {"x": 1.0, "y": 1.0}
    mixed = identity_of(Mixture({"x": named, "y": bare}, weights))
    assert mixed is not None
    assert mixed.samples == 8
    assert mixed != identity_of(Mixture({"x": other, "y": bare}, weights))
    assert mixed == identity_of(Mixture({"y": bare, "x": named}, weights))
    assert identity_of(Mixture({"x": named, "y": StreamLoader(Records(), collate, batch_size=2)}, weights)) is None


def test_other_samples_begin_the_next_epoch() -> None:
    place = {"epoch": 3, "batch": 11}
    few = loader(Numbers(4))
    with pytest.raises(ValueError, match="no such position"):
        few.load_state_dict(place)
    few.restart(place)
    assert few.state_dict() == {"epoch": 4, "batch": 0}
    stream = StreamLoader(Records(), collate, batch_size=2)
    stream.restart({**place, "window": 9, "stream": {"place": 77}})
    assert stream.state_dict() == {"epoch": 4, "window": 0, "batch": 0, "stream": {"place": 0}}
    mixture = Mixture({"x": few}, {"x": 1.0})
    mixture.restart({"batch": 30, "sources": {"x": place}})
    assert mixture.state_dict() == {"batch": 30, "sources": {"x": {"epoch": 4, "batch": 0}}}
