"""The bag of words, and `d2v probe` on texts beside it."""

import math
from pathlib import Path

import pytest
import torch

from d2v.core.model import Batch
from d2v.text import TextDataConfig
from d2v.text.tokenizing import Tokenizer, train_tokenizer
from d2v.text.words import bag_of_words

TRAIN = ["The cat sat", "the dog", "a cat, a cat"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TRAIN, 264)


def batches(texts: list[str], config: TextDataConfig) -> list[Batch]:
    found = [config.prepare([text]) for text in texts]
    return [Batch(source=one.source, labels=torch.tensor([i % 2])) for i, one in enumerate(found)]


def test_weights_by_hand(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name, content in tokenizer.files().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.txt").write_text("text")
    config = TextDataConfig(path=str(tmp_path / "a.txt"), tokenizer=str(tmp_path))
    found = bag_of_words({"train": batches(TRAIN, config), "test": batches(["cat\nbird dog"], config)}, config)
    x = found["train"].values["input"]["raw"]
    # Words: cat, dog, sat, the; "a" is too short.
    once, twice = math.log(4 / 2) + 1, math.log(4 / 3) + 1
    first = torch.tensor([twice, 0, once, twice])
    assert torch.allclose(x[0], first / first.norm())
    assert torch.allclose(x[2], torch.tensor([1.0, 0, 0, 0]))
    other = torch.tensor([twice, once, 0, 0])
    assert torch.allclose(found["test"].values["input"]["raw"], (other / other.norm())[None])
    assert found["train"].labels is not None
    assert found["train"].labels.tolist() == [0, 1, 0]


def test_probe_shows_words_beside_features(tmp_path: Path) -> None:
    from d2v.core import pretrain, probe

    topics = {
        "sea": ["ship", "wave", "harbour", "sail", "deck", "anchor"],
        "farm": ["cow", "barn", "field", "plough", "hay", "tractor"],
    }
    (tmp_path / "labelled").mkdir()
    for split, count in (("train", 24), ("test", 8)):
        rows = [
            f"{topic},the {words[i % 6]} and the {words[(i // 2) % 6]} of the {words[(i // 3) % 6]}"
            for topic, words in topics.items()
            for i in range(count)
        ]
        (tmp_path / f"labelled/{split}.csv").write_text("\n".join(["label,text", *rows]) + "\n")
    overrides = {
        "train.max_steps": 2,
        "train.batch_size": 4,
        "device": "cpu",
        "model.student.adapters.text.vocabulary_size": 300,
        "data.vocabulary_size": 300,
    }
    pretrain("text/small", {**overrides, "data": "wordnet", "out": str(tmp_path / "run")}, progress=False)
    given = {"model": str(tmp_path / "run"), "data": str(tmp_path / "labelled"), "labels": 10}
    results = probe(given, poolings=["mean"], progress=False)
    assert results.table().splitlines()[1].startswith("bag of words")
    raw = {case.probe: score.percent for case, score in results.scores.items() if case.features == "raw"}
    assert raw["linear"] == 100.0
    assert {case.features for case in results.scores} == {"raw", "untrained", "pretrained"}
