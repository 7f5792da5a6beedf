"""The CTC probe: it reads what is in the features, reports what is not, and repeats itself."""

import pytest
import torch

from d2v.core.labels import Symbols
from d2v.core.model import Batch, Local
from d2v.core.probes import Case, SequenceProbing, Sequences, local_sequences

LETTERS = Symbols(("<s>", "|", "A", "B", "C"), blank="<s>", boundary="|")
SHORT = SequenceProbing(epochs=40, heads=1, width=16, kernel=3, dropout=0.0)


def spoken(n: int, *, seed: int, noise: float = 0.1) -> Sequences:
    """Words of letters; each symbol is a direction in the features, for two frames, with a pause after it."""
    generator = torch.Generator().manual_seed(seed)
    frames, symbols = [], []
    for _ in range(n):
        letters = torch.randint(1, 5, (int(torch.randint(2, 7, (), generator=generator)),), generator=generator)
        units = torch.stack([letters, torch.zeros_like(letters)], 1).flatten().repeat_interleave(2)
        frames.append(torch.eye(5)[units] + noise * torch.randn(len(units), 5, generator=generator))
        symbols.append(letters.tolist())
    return Sequences(frames=frames, symbols=symbols)


def error(train: Sequences, test: Sequences, probing: SequenceProbing = SHORT) -> float:
    results = probing.measure(
        "pretrained", {"train": {"all": train}, "test": {"all": test}}, labels=LETTERS, metric="character error rate"
    )
    assert (results.num_train, results.num_test) == (len(train.frames), len(test.frames))
    score = results.scores[Case("pretrained", "all", "-", "ctc")]
    assert score.draws == probing.heads
    assert "character error rate in percent" in results.table()
    return score.percent


def test_what_is_in_the_features_is_read() -> None:
    assert error(spoken(64, seed=0), spoken(16, seed=1)) < 5


def test_what_is_not_in_the_features_is_not_read() -> None:
    assert error(spoken(64, seed=0, noise=50.0), spoken(16, seed=1, noise=50.0)) > 50


def test_each_recogniser_is_counted() -> None:
    trained: list[None] = []
    both = {"first": spoken(4, seed=0), "second": spoken(4, seed=1)}
    probing = SequenceProbing(epochs=1, heads=3, width=4)
    probing.measure(
        "pretrained",
        {"train": both, "test": both},
        labels=LETTERS,
        metric="character error rate",
        advance=lambda: trained.append(None),
    )
    assert len(trained) == 6


def test_a_head_is_decided_by_its_seed() -> None:
    train, test = spoken(16, seed=0, noise=1.0), spoken(16, seed=1, noise=1.0)
    before = torch.random.get_rng_state()
    assert error(train, test) == error(train, test)
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random numbers go on as before"
    assert error(train, test) != error(train, test, SequenceProbing(epochs=2, heads=2, width=16, kernel=3, seed=7))


def test_scale_and_offset_of_the_features_do_not_matter() -> None:
    train, test = spoken(32, seed=0), spoken(8, seed=1)
    moved = [Sequences(frames=[100 * x + 7 for x in one.frames], symbols=one.symbols) for one in (train, test)]
    assert error(*moved) == pytest.approx(error(train, test), abs=3)


def test_a_transcript_longer_than_its_frames_does_not_spoil_the_others() -> None:
    train = spoken(64, seed=0)
    longer = Sequences(frames=[*train.frames, torch.randn(3, 5)], symbols=[*train.symbols, [2, 3, 4, 2, 3, 4, 2]])
    assert error(longer, spoken(16, seed=1)) < 5


def test_features_without_an_encoder_are_read_without_padding() -> None:
    padding = torch.tensor([[False, False, False], [False, True, True]])
    batch = Batch(source=torch.zeros(2, 3), labels=torch.tensor([[2, 1], [3, 0]]), label_lengths=torch.tensor([2, 1]))
    read = local_sequences(
        lambda batch: Local(x=torch.ones(2, 3, 4), padding=padding, grid=(3,)), [batch], labels=LETTERS
    )
    assert [tuple(x.shape) for x in read.frames] == [(3, 4), (1, 4)]
    assert read.symbols == [[2, 1], [3]]
    with pytest.raises(ValueError, match="finite"):
        local_sequences(
            lambda batch: Local(x=torch.full((2, 3, 4), torch.nan), padding=None, grid=(3,)), [batch], labels=LETTERS
        )


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="kernel"):
        SequenceProbing(kernel=4)
    with pytest.raises(ValueError, match="batches"):
        Sequences(frames=[], symbols=[])
    with pytest.raises(ValueError, match="blank"):
        SHORT.measure(
            "raw",
            {part: {"-": spoken(2, seed=0)} for part in ("train", "test")},
            labels=Symbols(("A", "B", "C", "D", "E")),
            metric="symbol error rate",
        )
