"""Labelled texts as data: tokens of sentences and pairs, lengths, batches, held-out texts, labels, bad input."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentences import reviews, write_csv

from d2v.core.data import DataError, Loader
from d2v.core.labels import Classes, MultiLabel, Number
from d2v.text import SentenceDataConfig, TextAdapterConfig
from d2v.text.sentences.samples import Encoded, Rows
from d2v.text.tokenizing import Tokenizer, train_tokenizer, write_tokenizer

ADAPTER = TextAdapterConfig(vocabulary_size=270, max_length=24)
LABELS = Classes(("neg", "pos"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([text for text, _ in reviews(200)], vocabulary_size=270)


def config(path: Path, own: Tokenizer, **options: Any) -> SentenceDataConfig:
    return SentenceDataConfig(path=str(path), **options).with_files(own.files()).with_adapter(ADAPTER)


def rows(loader: Loader[Any]) -> dict[int, list[int]]:
    """Tokens by id, without padding."""
    found = {}
    for batch in loader:
        assert batch.ids is not None
        for id, row in zip(batch.ids.tolist(), batch.source.tolist(), strict=True):
            found[id] = [token for token in row if token != 1]
    return found


def test_sentences_and_pairs(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first, second = tokenizer.encode("good film"), tokenizer.encode("bad plot")
    single = config(write_csv(tmp_path / "a.csv", [(" good film ", "pos"), ("bad plot", "neg")]), tokenizer)
    assert rows(single.build(None, batch_size=2)) == {0: [0, *first, 2], 1: [0, *second, 2]}
    (tmp_path / "p.jsonl").write_text(json.dumps({"text": "good film", "text_pair": "bad plot"}) + "\n")
    pair = config(tmp_path / "p.jsonl", tokenizer)
    assert rows(pair.build(None, batch_size=2)) == {0: [0, *first, 2, 2, *second, 2]}
    for items, whole in ((["good film"], [0, *first, 2]), ([("good film", "bad plot")], [0, *first, 2, 2, *second, 2])):
        assert single.prepare(items).source.tolist() == [whole]


def test_batches_are_padded_at_the_end(tmp_path: Path, tokenizer: Tokenizer) -> None:
    batch = config(tmp_path, tokenizer).prepare(["good", "good film was bad"])
    assert batch.source[0, -1] == 1
    assert batch.source[0, 0] == batch.source[1, 0] == 0


@given(st.integers(0, 30), st.integers(0, 30), st.integers(8, 40))
def test_cut_samples_keep_their_special_tokens(first: int, second: int, room: int) -> None:
    one, other = (Rows([torch.full((count,), 9).numpy()]) for count in (first, second))
    single, pair = Encoded(first=one), Encoded(first=one, second=other)
    found = single.sample(0, room).tolist()
    assert found == [0, *[9] * min(first, room - 2), 2]
    assert len(found) == min(int(single.lengths()), room)
    found = pair.sample(0, room).tolist()
    assert len(found) == min(int(pair.lengths()), room)
    assert (found[0], found[-1], found.count(2)) == (0, 2, 3)
    kept = found.index(2) - 1
    left = len(found) - 4 - kept
    assert kept == first or left == second or abs(kept - left) <= 1, "the longer one is cut first"


def test_long_texts(tmp_path: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    texts = [(text, label) for text, label in reviews(40)]
    texts[0] = (" ".join(["good film"] * 40), "neg")
    file = write_csv(tmp_path / "a.csv", texts)
    cut = config(file, tokenizer, hold_out=0.0)
    with caplog.at_level(logging.WARNING):
        found = rows(cut.build("train", batch_size=8))
    assert len(found) == 40
    assert max(map(len, found.values())) == 24
    assert "longer than 24 tokens and cut" in caplog.text
    leaving = config(file, tokenizer, hold_out=0.0, cut=False)
    training = leaving.build("train", batch_size=8, training=True, labels=LABELS)
    kept = training.samples.kept.tolist()  # type: ignore[attr-defined]  # our samples
    short = [id for id, (text, _) in enumerate(texts) if len(tokenizer.encode(text)) + 2 <= 24]
    assert kept == short
    assert 0 < len(short) < 40
    assert len(rows(leaving.build("train", batch_size=8))) == 40, "evaluation leaves nothing out"
    assert max(map(len, rows(config(file, tokenizer, max_length=10).build(None, batch_size=8)).values())) == 10
    long = config(write_csv(tmp_path / "b.csv", texts[:1]), tokenizer, hold_out=0.0, cut=False)
    with pytest.raises(DataError, match=r"all 1 texts.*data.cut=true"):
        long.build("train", batch_size=8, training=True)


def test_limits_of_a_batch(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write_csv(tmp_path / "a.csv", reviews(60))
    data = config(file, tokenizer, max_tokens=50)
    for training in (True, False):
        loader = data.build("train", batch_size=8, training=training, labels=LABELS)
        batches = [batch for batch, _ in zip(loader, range(20), strict=False)]
        assert all(batch.size <= 8 and batch.source.numel() <= 50 for batch in batches)
    with pytest.raises(DataError, match=r"a.csv:\d+ has \d+ tokens, above data.max_tokens=12"):
        config(file, tokenizer, max_tokens=12).build("train", batch_size=8, training=True)
    assert len(rows(config(file, tokenizer, max_tokens=12).build(None, batch_size=8))) == 60


@pytest.mark.parametrize("buckets", [0, 4])
def test_training_reads_every_text_once_an_epoch(tmp_path: Path, tokenizer: Tokenizer, buckets: int) -> None:
    data = config(write_csv(tmp_path / "a.csv", reviews(61)), tokenizer, hold_out=0.0, num_buckets=buckets)
    loader = data.build("train", batch_size=8, training=True, labels=LABELS)
    epoch = [batch for batch, _ in zip(loader, range(len(loader)), strict=False)]
    assert sorted(id for batch in epoch for id in batch.ids.tolist()) == list(range(61))  # type: ignore[union-attr]  # it has ids
    means = [batch.source.shape[1] - (batch.source != 1).sum(1).min() for batch in epoch]
    assert (sum(means) / len(means) < 5) == bool(buckets), "buckets mean less padding"


def test_held_out_texts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = reviews(60)
    data = config(write_csv(tmp_path / "a.csv", texts), tokenizer)
    parts = {name: rows(data.build(name, batch_size=8)) for name in ("train", "test", "train+test")}
    assert parts["train"].keys() | parts["test"].keys() == parts["train+test"].keys()
    assert not parts["train"].keys() & parts["test"].keys()
    assert "held out by data.hold_out_seed=0" in data.contents().line()
    # The same text is on the same side in another file, and in another order.
    other = config(write_csv(tmp_path / "b.csv", texts[::-1]), tokenizer)
    held = {tuple(row) for row in rows(other.build("test", batch_size=8)).values()}
    assert held == {tuple(row) for row in parts["test"].values()}


def test_labels(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write_csv(tmp_path / "a.csv", reviews(10))
    data = config(file, tokenizer)
    assert data.labels(Classes) == LABELS
    batch = next(iter(data.build(None, batch_size=10, labels=Classes(("pos", "neg")))))
    assert batch.labels is not None
    assert batch.ids is not None
    assert [("pos", "neg")[label] for label in batch.labels] == [reviews(10)[id][1] for id in batch.ids]
    with pytest.raises(DataError, match=r"a.csv, line 2: 'neg' is none of the 2 classes good, pos"):
        data.build(None, batch_size=10, labels=Classes(("good", "pos")))
    with pytest.raises(DataError, match="line 2: the label 'neg' is not a finite number"):
        data.labels(Number)
    with pytest.raises(DataError, match="any number of classes"):
        data.labels(MultiLabel)
    numbers = config(write_csv(tmp_path / "n.csv", [("good", "1.5"), ("bad", "-2")]), tokenizer)
    batch = next(iter(numbers.build(None, batch_size=2, labels=numbers.labels(Number))))
    assert batch.labels is not None
    assert sorted(batch.labels.tolist()) == [-2, 1.5]
    infinite = config(write_csv(tmp_path / "i.csv", [("good", "inf"), ("bad", "1")]), tokenizer)
    with pytest.raises(DataError, match="'inf' is not a finite"):
        infinite.labels(Number)
    (tmp_path / "t.txt").write_text("some text\n")
    with pytest.raises(DataError, match="needs a column label"):
        config(tmp_path / "t.txt", tokenizer).build(None, batch_size=2, labels=LABELS)
    assert next(iter(config(tmp_path / "t.txt", tokenizer).build(None, batch_size=2))).labels is None


@pytest.mark.parametrize("count", [1, 5])
def test_few_texts_of_each_class(tmp_path: Path, tokenizer: Tokenizer, count: int) -> None:
    texts = reviews(40)
    data = config(write_csv(tmp_path / "a.csv", texts), tokenizer, per_class=count)
    held = rows(data.build("test", batch_size=8)).keys()
    kept = data.build("train", batch_size=8, training=True, labels=LABELS).samples.kept.tolist()  # type: ignore[attr-defined]  # our samples
    assert sorted(texts[id][1] for id in kept) == ["neg"] * count + ["pos"] * count
    assert not held & set(kept)
    assert len(rows(data.build("train", batch_size=8))) == 40 - len(held), "evaluation reads all"
    with pytest.raises(DataError, match=r"data.per_class=30, but class 'neg' has only \d+ texts"):
        config(tmp_path / "a.csv", tokenizer, per_class=30).build("train", batch_size=8, training=True, labels=LABELS)
    with pytest.raises(DataError, match="needs classes"):
        data.build("train", batch_size=8, training=True)


def test_the_identity_is_that_of_the_texts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = reviews(20)
    one = config(write_csv(tmp_path / "a.csv", texts), tokenizer).build(None, batch_size=4).identity()
    other = config(write_csv(tmp_path / "b.csv", texts[5:]), tokenizer).build(None, batch_size=4).identity()
    assert one.shared(other) >= 15  # some texts may occur twice


def test_a_lone_surrogate(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": "a\\ud800"}\n')
    with pytest.raises(DataError, match=r"a.jsonl, line 2: character 1.*U\+D800"):
        config(tmp_path / "a.jsonl", tokenizer).build(None, batch_size=2)


@pytest.mark.parametrize(
    ("item", "word"), [(3, "string"), (("a", "b", "c"), "pair"), (("a", 1), "pair"), ("\udc80", "surrogate")]
)
def test_items_that_are_no_texts(tmp_path: Path, tokenizer: Tokenizer, item: Any, word: str) -> None:
    with pytest.raises(DataError, match=f"item 1.*{word}"):
        config(tmp_path, tokenizer).prepare(["fine", item])


def test_the_tokenizer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write_csv(tmp_path / "a.csv", reviews(10))
    alone = SentenceDataConfig(path=str(file)).with_files({})
    with pytest.raises(DataError, match=r"no tokenizer; set data\.tokenizer"):
        alone.build(None, batch_size=2)
    write_tokenizer(tokenizer, tmp_path / "own")
    named = SentenceDataConfig(path=str(file), tokenizer=str(tmp_path / "own")).with_files({})
    assert named.files() == tokenizer.files()
    other = train_tokenizer(["quite other words"], vocabulary_size=265)
    write_tokenizer(other, tmp_path / "other")
    with pytest.raises(DataError, match="not the tokenizer that the model was trained with"):
        config(file, tokenizer, tokenizer=str(tmp_path / "other")).files()
    broken = SentenceDataConfig(path=str(file)).with_files({"vocab.json": b"{}", "merges.txt": b""})
    with pytest.raises(DataError, match="tokenizer of the model is broken"):
        broken.files()
    moved = config(file, tokenizer, tokenizer=str(tmp_path / "moved"))
    assert moved.files() == tokenizer.files(), "a model has its own copy"


def test_positions_of_the_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"data\.max_length=30, but the model takes at most 24"):
        config(tmp_path, tokenizer, max_length=30).matching(ADAPTER)
    with pytest.raises(ValueError, match="max_length"):
        SentenceDataConfig(path="a.csv", max_length=4)
