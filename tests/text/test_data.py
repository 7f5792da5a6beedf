"""Text as the data of a recipe: what `data.path` may be, batches and their order, and what does not fit a model."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from token_files import writing_tokens

from d2v.audio import WaveformAdapter
from d2v.core.data import DataError
from d2v.core.labels import Classes
from d2v.core.model import Batch
from d2v.text import TextAdapter, TextAdapterConfig, TextDataConfig
from d2v.text.corpus import sources
from d2v.text.corpus.encoding import encode
from d2v.text.corpus.texts import TextFiles
from d2v.text.corpus.token_file import TokenWriter
from d2v.text.tokenizing import Tokenizer, train_tokenizer, write_tokenizer

CORPUS = Path(__file__).parent.parent / "parity/data/rules/corpus"
TEXT = "the cat sat on the mat\nthe other cat\n\nit sat on the other mat with the cat\n" * 8


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXT.splitlines(), 272)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A folder of token files with the splits train and valid."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "text").mkdir()
    for split, text in (("train", TEXT), ("valid", "the cat sat\n")):
        (folder / "text" / f"{split}.txt").write_text(text)
    encode(TextFiles({split: [str(folder / f"text/{split}.txt")] for split in ("train", "valid")}), folder, tokenizer)
    write_tokenizer(tokenizer, folder)
    return folder


def data(path: Path | str, **fields: Any) -> TextDataConfig:
    return TextDataConfig(**{"path": str(path), "block_size": 12, "num_workers": 0} | fields)


def epoch(config: TextDataConfig, **options: Any) -> list[Batch]:
    """The batches of the first epoch in training."""
    loader = config.build(config.splits().train, **{"batch_size": 2, "training": True} | options)
    batches = iter(loader)
    return [next(batches) for _ in range(loader.plan.num_batches(0))]


def ids(batches: list[Batch]) -> list[int]:
    return [id for batch in batches for id in (() if batch.ids is None else batch.ids.tolist())]


def test_blocks_of_equal_length(tokens: Path, tokenizer: Tokenizer) -> None:
    config = data(tokens)
    found = config.contents()
    total = sum(found.splits.values())
    assert list(found.splits) == ["train", "valid"]
    assert found.line().startswith(f"{tokens}: {total} blocks (train {total - 1}, valid 1)")
    assert "vocabulary of 272" in found.line()
    assert config.splits().val is None  # with one split besides train, results are reported on it
    assert config.splits().test == "valid"
    batches = list(config.build("train", batch_size=4))
    source = torch.cat([batch.source.flatten() for batch in batches if batch.padding is None]).view(-1, 12)
    assert bool((source[:, 0] == 0).all())
    text = tokenizer.decode([id for row in source[:, 1:].tolist() for id in row])
    assert text.startswith("the cat sat on the matthe other catit sat on")


def test_training_order_is_a_function_of_seed_and_epoch(tokens: Path) -> None:
    found = [ids(epoch(data(tokens), seed=seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0] != sorted(found[0])
    ranks = [ids(epoch(data(tokens), batch_size=1, rank=rank, world_size=2)) for rank in (0, 1)]
    assert sorted(ranks[0] + ranks[1]) == sorted(found[0])


def test_batches_resume_exactly(tokens: Path) -> None:
    for fields in ({}, {"break_mode": "complete_doc"}):
        config = data(tokens, **fields)
        loader = config.build("train", batch_size=2, training=True)
        batches = iter(loader)
        for _ in range(3):
            next(batches)
        again = config.build("train", batch_size=2, training=True)
        again.load_state_dict(loader.state_dict())
        assert torch.equal(next(batches).source, next(iter(again)).source)


def test_blocks_of_unequal_length_are_padded_and_limited(tokens: Path) -> None:
    config = data(tokens, break_mode="complete_doc", max_tokens=48, block_size=24)
    batches = epoch(config, batch_size=99)
    assert any(batch.padding is not None for batch in batches) or len({b.source.shape[1] for b in batches}) > 1
    for batch in batches:
        padded = batch.source == 1
        assert torch.equal(padded, torch.zeros_like(padded) if batch.padding is None else batch.padding)
        assert batch.source.numel() <= 48
        assert bool((batch.source[:, 0] == 0).all())
    with pytest.raises(ValueError, match="max_tokens=5"):
        data(tokens, max_tokens=5)


def test_several_folders_are_used_in_turn(tokens: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("it sat on the other mat\n" * 4)
    encode(TextFiles({"train": [str(tmp_path / "a.txt")]}), tmp_path, tokenizer)
    write_tokenizer(tokenizer, tmp_path)
    config = data(f"{tokens}:{tmp_path}")
    loader = config.build("train", batch_size=2, training=True)
    lengths = [loader.plan.num_batches(epoch) for epoch in range(4)]
    assert lengths[:2] == lengths[2:]
    batches = iter(loader)
    used = [[next(batches) for _ in range(length)] for length in lengths[:3]]
    first = len(data(tokens).build("train", batch_size=2).samples)
    assert max(ids(used[0])) < first <= min(ids(used[1]))
    assert max(ids(used[2])) < first
    assert ids(used[0]) != ids(used[2])
    assert loader.name(first).startswith(str(tmp_path))
    every = ids(list(config.build("train", batch_size=2)))
    assert every == list(range(len(loader.samples)))


def test_text_files_are_tokenised_at_the_start(tokens: Path) -> None:
    config = data(tokens / "text", tokenizer=str(tokens))
    other = data(tokens, block_size=12)
    assert torch.equal(epoch(config)[0].source, epoch(other)[0].source)
    assert config.files() == other.files()
    one = data(tokens / "text/train.txt", vocabulary_size=270)
    assert one.contents().splits == {"train": one.contents().splits["train"]}
    assert (
        one.build(None, batch_size=1).identity()
        == data(tokens / "text/train.txt", vocabulary_size=270).build(None, batch_size=1).identity()
    )


def test_text_without_a_tokenizer_names_the_command(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"d2v data tokens .*text TOKENS --tokenizer FOLDER"):
        data(tokens / "text").contents()
    monkeypatch.setattr(sources, "LARGEST_TEXT", 100)
    with pytest.raises(DataError, match=r"d2v data tokens .*text TOKENS --vocabulary 270"):
        data(tokens / "text", vocabulary_size=270).contents()


def test_binarised_data_of_the_original(tmp_path: Path) -> None:
    for name in ("train.bin", "train.idx", "dict.txt"):
        shutil.copy(CORPUS / name, tmp_path / name)
    config = data(tmp_path)
    assert config.contents().facts == ("92 tokens", "vocabulary of 55")
    assert config.files() == {}
    config.match(TextAdapter(vocabulary_size=55, embed_dim=8))
    with pytest.raises(DataError, match="has the id 5"):
        config.match(TextAdapter(vocabulary_size=40, embed_dim=8))
    with pytest.raises(DataError, match="no tokenizer"):
        config.prepare(["text"])
    (tmp_path / "dict.txt").write_text("nonsense\n")
    with pytest.raises(DataError, match="line 1"):
        data(tmp_path).contents()


def test_ids_outside_of_the_vocabulary_are_broken_samples(tmp_path: Path) -> None:
    shutil.copy(CORPUS / "dict.txt", tmp_path)
    with writing_tokens(tmp_path / "train", 60_000) as writer:
        writer.add(np.array([5, 6, 2, 5, 55, 2]), np.array([3, 3]))
    loader = data(tmp_path, block_size=4).build("train", batch_size=1)
    assert [batch.source.tolist() for batch in loader] == [[[0, 5, 6, 2]]]
    (name,) = loader.broken
    assert name == f"{tmp_path}/train, tokens 3 to 5"
    assert "id 55" in loader.broken[name]


def test_negative_ids_are_broken_samples(tmp_path: Path) -> None:
    with (tmp_path / "train.bin").open("w+b") as content, (tmp_path / "train.idx").open("w+b") as index:
        writer = TokenWriter(content, index, np.dtype("<i4"))
        writer.add(np.array([5, 6, 2, -7, 2]), np.array([3, 2]))
        writer.finish()
    loader = data(tmp_path, block_size=4).build("train", batch_size=1)
    assert [batch.source.tolist() for batch in loader] == [[[0, 5, 6, 2]]]
    assert list(loader.broken.values()) == ["id -7 is negative"]


def test_what_does_not_fit_a_model_is_refused(tokens: Path) -> None:
    config = data(tokens, break_mode="complete", block_size=8)
    adapter = TextAdapter(vocabulary_size=272, embed_dim=8, max_length=8)
    with pytest.raises(DataError, match=r"8 positions; set data\.cut_long=true"):
        config.match(adapter)
    data(tokens, break_mode="complete", block_size=8, cut_long=True).match(adapter)
    with pytest.raises(DataError, match=r"vocabulary_size=272 \(300\)"):
        config.match(TextAdapter(vocabulary_size=300, embed_dim=8))
    wave = WaveformAdapter(embed_dim=16, positions_groups=1)
    with pytest.raises(DataError, match="Adapter"):
        config.match(wave)
    with pytest.raises(DataError, match=r"data\.block_size=12 is more than the model's 8 positions"):
        data(tokens).matching(TextAdapterConfig(vocabulary_size=272, max_length=8))
    wanted = data("wordnet", vocabulary_size=300).matching(TextAdapterConfig(vocabulary_size=9, mask_id=8))
    assert (wanted.vocabulary_size, wanted.mask_id) == (300, 299)
    kept = data(tokens, vocabulary_size=300).matching(TextAdapterConfig(vocabulary_size=272))
    assert kept == TextAdapterConfig(vocabulary_size=272)


def test_tokens_of_another_tokenizer_are_refused(tokens: Path, tmp_path: Path) -> None:
    other = train_tokenizer(["some other words entirely, with other merges"] * 3, 272)
    write_tokenizer(other, tmp_path)
    with pytest.raises(DataError, match=r"another tokenizer than that of data\.tokenizer"):
        data(tokens, tokenizer=str(tmp_path)).contents()
    with pytest.raises(DataError, match="another tokenizer than that of the model"):
        data(tokens).with_files(other.files()).contents()
    own = data(tokens / "text").with_files(other.files())
    assert own.files() == other.files()
    with pytest.raises(DataError, match="broken"):
        data(tokens).with_files({"vocab.json": b"[", "merges.txt": b""})
    assert data(tokens).with_files({"seen-0.keys": b""}).contents().splits


def test_prepared_texts(tokens: Path, tokenizer: Tokenizer) -> None:
    config = data("-").with_files(tokenizer.files())
    batch = config.prepare(["the cat", " the other cat\nsat\r\n"])
    assert tokenizer.decode(batch.source[1].tolist()) == "the other catsat"
    assert batch.source[0].tolist()[-1] == 1
    assert batch.padding is not None
    assert batch.source[1].tolist().count(2) == 2
    with pytest.raises(DataError, match="item 1, a int: a text must"):
        config.prepare(["a", 7])
    with pytest.raises(DataError, match=r"item 0.* lone surrogate"):
        config.prepare(["\ud800"])
    with pytest.raises(DataError, match="more than block_size=12"):
        config.prepare(["xyz" * 9])
    with pytest.raises(DataError, match="one item"):
        config.prepare("a")


def test_what_does_not_exist(tokens: Path) -> None:
    with pytest.raises(DataError, match=r"built-in set \(wordnet\); did you mean 'wordnet'"):
        data("wordne").contents()
    with pytest.raises(DataError, match=r"no split 'vaild'.*did you mean 'valid'"):
        data(tokens).build("vaild", batch_size=1)
    with pytest.raises(DataError, match="no labels"):
        data(tokens).labels(Classes)
    with pytest.raises(DataError, match="no labels"):
        data(tokens).build("train", batch_size=1, labels=Classes(("a", "b")))


def test_the_built_in_set_is_whole_glosses() -> None:
    config = data("wordnet", vocabulary_size=400, block_size=64)
    found = config.contents()
    assert found.splits["train"] > 20_000
    tokenizer = config._sets[0].tokenizer
    assert tokenizer is not None
    first = next(iter(config.build(None, batch_size=1)))
    assert tokenizer.decode(first.source[0].tolist()).startswith(
        "object: a tangible and visible entity; an entity that can"
    )
