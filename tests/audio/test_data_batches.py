"""Batches of recordings: crops, padding, limits, and the same with any workers and after any interruption."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import LIBRIVOX, config, manifest, save
from torch import Tensor

from d2v.audio import WaveformAdapter
from d2v.audio.recordings.batching import counted_lengths
from d2v.audio.recordings.samples import Collate, Sample, cropped, padded
from d2v.core.data import BudgetPlan, DataError, Loader
from d2v.core.data.budget import bucket_limits
from d2v.core.labels import Symbols
from d2v.core.model import Batch

PUBLISHED = json.loads((Path(__file__).parents[1] / "core" / "data" / "data" / "batching.json").read_text())
LENGTHS = [3000, 800, 500, 2200, 900, 1600, 450, 1600, 2900, 700]
quick = settings(max_examples=80, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for number, length in enumerate(LENGTHS):
        save(folder / f"{number}.wav", length, seed=number)
    return folder


def rows(count: list[int]) -> list[Tensor]:
    return [torch.arange(length, dtype=torch.float32) for length in count]


def taken(loader: Loader[Any], count: int | None = None) -> list[tuple[list[int], list[list[float]], Any]]:
    return [
        (batch.ids.tolist(), batch.source.tolist(), None if batch.padding is None else batch.padding.tolist())
        for batch in islice(loader, count)
    ]


# --- crops and padding ------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_a_crop_is_a_part_and_crops_can_follow_each_other(length: int, first: int, last: int, place: float) -> None:
    whole = torch.arange(length)
    found = cropped(whole, first, place)
    assert len(found) == min(length, first)
    assert torch.equal(found, torch.arange(int(found[0]), int(found[0]) + len(found)))
    twice = cropped(found, min(first, last), place)
    assert abs(int(twice[0]) - int(cropped(whole, min(first, last), place)[0])) <= 1


def test_all_places_are_equally_frequent() -> None:
    starts = torch.tensor([int(cropped(torch.arange(9), 5, place / 1000)[0]) for place in range(1000)])
    assert torch.bincount(starts).tolist() == [200] * 5


def collated(waveforms: list[Tensor], *, crop: bool, places: list[float]) -> Batch:
    samples = [
        Sample(waveform=one, place=place, label=None, id=id)
        for id, (one, place) in enumerate(zip(waveforms, places, strict=True))
    ]
    return Collate(crop=crop)(samples, torch.arange(len(samples)))


def test_published_collation() -> None:
    """With the crops of the recorded case, the batches are those of the original."""
    case = PUBLISHED["audio_collate"]
    waveforms, crop, pad = rows(case["lengths"]), case["crop"], case["pad"]
    starts = [int(start) for start in crop["first_sample_of_row"]]
    places = [
        start / (length - crop["length"] + 1) + 1e-6 for start, length in zip(starts, case["lengths"], strict=True)
    ]
    limited = [cropped(one, crop["max_sample_size"], place) for one, place in zip(waveforms, places, strict=True)]
    batch = collated(limited, crop=True, places=places)
    assert batch.source.shape == (3, crop["length"])
    assert batch.source[:, 0].tolist() == crop["first_sample_of_row"]
    assert batch.padding is None
    limited = [cropped(one, pad["max_sample_size"], 0.9) for one in waveforms]
    batch = collated(limited, crop=False, places=[0.0] * 3)
    assert batch.source.tolist() == pad["source"]
    assert batch.padding is not None
    assert batch.padding.int().tolist() == pad["padding_mask"]


@pytest.mark.parametrize("case", PUBLISHED["audio_order"])
def test_published_sizes_and_their_order(case: dict[str, Any]) -> None:
    counted = counted_lengths(torch.tensor(case["sizes"]), case["kwargs"].get("max_sample_size"))
    assert counted.tolist() == case["num_tokens"]
    plan = BudgetPlan(lengths=counted, max_samples=1, shuffle=False, drop_last=False)
    ordered = [int(counted[request.ids[0]]) for request in plan.requests(0)]
    assert ordered == [case["num_tokens"][id] for id in case["order"]]


@pytest.mark.parametrize("case", PUBLISHED["buckets"])
def test_published_buckets(case: dict[str, Any]) -> None:
    assert bucket_limits(torch.tensor(sorted(case["sizes"])), case["num_buckets"]).tolist() == case["buckets"]


@quick
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_padding_marks_what_is_not_sound(lengths: list[int]) -> None:
    source, padding = padded([one + 1 for one in rows(lengths)])
    found = torch.zeros_like(source, dtype=torch.bool) if padding is None else padding
    assert torch.equal(source == 0, found)
    assert (~found).sum(1).tolist() == lengths
    assert (padding is None) == (len(set(lengths)) == 1)


# --- batches of a split -----------------------------------------------------------------------------------------------


def test_pretraining_crops_to_the_shortest(folder: Path) -> None:
    loader = config(folder, max_tokens=6400, max_samples=2000).build("train", batch_size=8, training=True)
    for batch in islice(loader, 12):
        assert batch.padding is None
        assert batch.ids is not None
        assert batch.source.shape[1] == min(min(LENGTHS[id] for id in batch.ids), 2000)
        assert batch.size * min(max(LENGTHS[id] for id in batch.ids), 2000) <= 6400


def test_crops_are_new_in_each_epoch_and_follow_the_seed(folder: Path) -> None:
    def starts(seed: int) -> list[list[float]]:
        data = config(folder, max_samples=500, normalize=False)
        loader = data.build("train", batch_size=10, seed=seed, training=True)
        # The batch holds all recordings: compare what is read of the first one.
        return [batch.source[batch.ids.tolist().index(0), :3].tolist() for batch in islice(loader, 3)]

    first = starts(1)
    assert first == starts(1)
    assert first != starts(2)
    assert len({tuple(start) for start in first}) == 3


def test_both_limits_hold_and_pad_pads(folder: Path) -> None:
    loader = config(folder, max_tokens=4000, pad=True).build("train", batch_size=3, training=True)
    sizes = set()
    for batch in islice(loader, 20):
        assert batch.source.numel() <= 4000
        assert batch.size <= 3
        assert batch.ids is not None
        assert batch.source.shape[1] == max(LENGTHS[id] for id in batch.ids)
        sizes.add(batch.size)
    assert max(sizes) == 3


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("max_tokens", [None, 2500, 100])
def test_evaluation_leaves_nothing_out(folder: Path, world_size: int, max_tokens: int | None) -> None:
    data = config(folder, max_tokens=max_tokens, min_samples=1000, max_samples=1000)
    seen: list[int] = []
    for rank in range(world_size):
        for batch in data.build("train", batch_size=4, rank=rank, world_size=world_size):
            assert batch.ids is not None
            ids = batch.ids.tolist()
            lengths = [LENGTHS[id] for id in ids]
            assert batch.source.shape == (len(ids), max(lengths)), "nothing is cropped"
            valid = batch.source.shape[1] if batch.padding is None else (~batch.padding).sum(1)
            assert torch.equal(torch.as_tensor(valid).expand(len(ids)), torch.tensor(lengths))
            seen += ids
    assert sorted(seen) == list(range(len(LENGTHS)))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_resuming_change_nothing(folder: Path, workers: int) -> None:
    options = {"max_tokens": 4000, "max_samples": 1500, "num_buckets": 3}
    through = taken(config(folder, **options).build("train", batch_size=4, seed=3, training=True), 12)
    loader = config(folder, **options, num_workers=workers).build("train", batch_size=4, seed=3, training=True)
    assert taken(loader, 5) == through[:5]
    again = config(folder, **options).build("train", batch_size=4, seed=3, training=True)
    again.load_state_dict(loader.state_dict())
    assert taken(again, 7) == through[5:]


def test_short_recordings_are_skipped_in_training_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = config(folder, min_samples=1000).build("train", batch_size=2, training=True)
    assert "5 of 10" in caplog.text
    assert {id for batch in islice(loader, 10) for id in batch.ids.tolist()} == {0, 3, 5, 7, 8}
    assert loader.name(8) == "8.wav"
    with pytest.raises(DataError, match=r"min_samples=9999.* 3000 samples"):
        config(folder, min_samples=9999).build("train", batch_size=2, training=True)


def test_long_recordings_are_an_error_that_names_the_keys(folder: Path) -> None:
    with pytest.raises(DataError, match=r"max_tokens=2500.*0\.wav.*3000.*max_samples"):
        config(folder, max_tokens=2500).build("train", batch_size=2, training=True)
    assert len(config(folder, max_tokens=2500, max_samples=2500).build("train", batch_size=2, training=True)) > 0
    with pytest.raises(ValueError, match="max_samples=300"):
        config(folder, max_samples=300)


def test_broken_recordings_are_replaced_counted_and_listed(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"{number}.wav", 600 + number, seed=number)
    save(tmp_path / "stereo.wav", 600, channels=2)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "empty.flac").touch()
    loader = config(tmp_path).build("train", batch_size=3, training=True)
    batches = list(islice(loader, 6))
    assert all(batch.size == 3 for batch in batches)
    once = config(tmp_path).build("train", batch_size=3)
    assert sum(batch.size for batch in once) == 6
    assert (
        {Path(name).name for name in once.broken}
        == {"stereo.wav", "broken.wav", "empty.flac"}
        == {Path(name).name for name in loader.broken}
    )
    assert "3 of 9 samples" in once.report()


@pytest.mark.parametrize(
    ("options", "key"), [({"rate": 8000}, "data.resample=true"), ({"channels": 2}, "data.mixdown=true")]
)
def test_a_folder_of_another_rate_or_stereo_names_the_key(tmp_path: Path, options: dict[str, int], key: str) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.wav", **options)
    for training in (False, True):
        with pytest.raises(DataError, match=key):
            list(islice(config(tmp_path).build("train", batch_size=2, training=training), 1))


def test_a_manifest_gives_the_lengths_and_is_checked(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.wav", 600, seed=number)
    names = [f"{number}.wav" for number in range(4)]
    path = manifest(tmp_path / "train.tsv", tmp_path, *names, lengths=[600, 600, 500, 700])
    loader = config(path).build(None, batch_size=4)
    assert [batch.ids.tolist() for batch in loader] == [[0, 1]]
    assert all("the manifest says" in reason for reason in loader.broken.values())


def test_lengths_of_manifests_are_used_without_opening_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manifest(folder / "lists" / "all.tsv", folder, *[f"{number}.wav" for number in range(10)])

    def refuse(*_: object) -> int:
        raise AssertionError("a header was read")

    monkeypatch.setattr("d2v.audio.recordings.reading.Reader.length", refuse)
    assert len(config(path, max_tokens=3000).build(None, batch_size=4)) > 1
    with pytest.raises(AssertionError):
        config(folder).build(None, batch_size=4)


def test_headers_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from d2v.audio.recordings.reading import Reader

    read: list[str] = []
    original = Reader.length
    monkeypatch.setattr(Reader, "length", lambda self, path: read.append(path) or original(self, path))
    data = config(folder)
    for _ in range(3):
        data.build("train", batch_size=2)
    assert len(read) == len(LENGTHS)


def test_real_speech_passes_through_a_model() -> None:
    data = config(LIBRIVOX / "librivox.csv", max_tokens=160_000)
    labels = data.labels(Symbols)
    adapter = WaveformAdapter(embed_dim=16, conv_layers=[(8, 10, 5), (8, 8, 8), (8, 8, 8)])
    data.match(adapter)
    total = 0
    for batch in data.build("train", batch_size=4, labels=labels):
        labels.check(batch)
        local = adapter.front(batch)
        assert local.x.isfinite().all()
        total += batch.size
    assert total == 5


def test_given_recordings_are_prepared_like_files(folder: Path) -> None:
    import numpy as np
    import soundfile

    data = config("-")
    array, rate = soundfile.read(folder / "3.wav", dtype="float32")
    integers, _ = soundfile.read(folder / "3.wav", dtype="int16")
    items = [str(folder / "3.wav"), folder / "3.wav", (array, rate), (integers, rate), torch.from_numpy(array)]
    batch = data.prepare([*items, torch.from_numpy(array)[None], array[:, None]])
    assert batch.padding is None
    torch.testing.assert_close(batch.source, batch.source[:1].expand(7, -1))
    short = data.prepare([array, array[:900]])
    assert short.padding is not None
    assert short.padding.sum(1).tolist() == [0, 1300]
    for item, words in [
        ((array, 8000), "resample"),
        (np.stack([array, array], 1), "mixdown"),
        (array[:100], "100 samples"),
        (array > 0, "integers"),
        (object(), "pair"),
        ("missing.wav", "No such file"),
        ((array, "fast"), "item 0"),
    ]:
        with pytest.raises(DataError, match=words):
            data.prepare([item])
    with pytest.raises(DataError, match="empty"):
        data.prepare([])
    assert config("-", mixdown=True).prepare([np.stack([array, array], 1)]).source.shape == (1, 2200)
