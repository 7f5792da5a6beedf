"""Scores of several classes, sequences and numbers against values by hand, and what all scorers have in common."""

import dataclasses
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from d2v.core.labels import Classes, MultiLabel, Number, Symbols
from d2v.core.model import Batch
from d2v.core.scores import ClassScorer, MultiLabelScorer, NumberScorer, SymbolScorer, Transcript
from d2v.core.task import Scorer

LETTERS = Symbols(("<s>", "<pad>", "|", "A", "B", "C"), blank="<s>", specials=("<pad>",), boundary="|")
PHONES = Symbols(("<s>", "ah", "t", "k"), blank="<s>")


def batch(labels: Any, lengths: list[int] | None = None) -> Batch:
    labels = torch.as_tensor(labels)
    label_lengths = None if lengths is None else torch.tensor(lengths)
    return Batch(source=torch.zeros(len(labels), 1), labels=labels, label_lengths=label_lengths)


def test_average_precision_by_hand() -> None:
    scorer = MultiLabelScorer(MultiLabel(("a", "b", "c")))
    truth = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    outputs = torch.tensor([[90.0, 1, 0], [80, 3, 0], [70, 2, 0], [60, 4, 0]])
    scorer.update(outputs, batch(truth))
    scores = scorer.compute()
    # Class a: places 1 and 3 of its ranking are right; class b: places 2 and 3; class c has no sample.
    expected = ((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    assert scores.metrics()["map"] == pytest.approx(100 * expected)
    loss = F.binary_cross_entropy_with_logits(outputs, truth, reduction="sum").item() / 4
    assert scores.metrics()["loss"] == pytest.approx(loss)
    assert "1 of 3 classes have no sample" in scores.tables()
    assert [line.split() for line in scores.tables().splitlines()[1:4]] == [
        ["a", "2", "0.833"],
        ["b", "2", "0.583"],
        ["c", "0", "-"],
    ]


def test_large_logits_keep_their_order() -> None:
    """The sigmoid of both is 1."""
    scorer = MultiLabelScorer(MultiLabel(("a",)))
    scorer.update(torch.tensor([[200.0], [250.0]]), batch([[False], [True]]))
    assert scorer.compute().metrics()["map"] == 100


def test_samples_of_no_class() -> None:
    scorer = MultiLabelScorer(MultiLabel(("a", "b")))
    scorer.update(torch.zeros(2, 2), batch(torch.zeros(2, 2)))
    assert "map" not in scorer.compute().metrics()
    assert "no class" in scorer.compute().undefined()["map"]


def test_a_long_table_shows_the_worst_classes() -> None:
    scorer = MultiLabelScorer(MultiLabel(tuple(f"c{i:02}" for i in range(30))))
    scorer.update(torch.randn(60, 30), batch(torch.rand(60, 30) < 0.3))
    lines = scorer.compute().tables().splitlines()
    found = [float(line.split()[-1]) for line in lines[2:]]
    assert len(found) == 10
    assert found == sorted(found)


def test_mixed_labels_are_not_scored() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        MultiLabelScorer(MultiLabel(("a",))).update(torch.zeros(1, 1), batch([[0.3]]))


def test_error_rates_by_hand() -> None:
    scorer = SymbolScorer(LETTERS)
    # "AB C" predicted as "AB B" (one word, one character); "A" predicted as "A B A" (two words, four characters).
    labels = [[3, 4, 2, 5, 2], [3, 2, 1, 1, 1]]
    scorer.update([[3, 4, 2, 4], [3, 2, 4, 2, 3, 2]], batch(labels, [5, 2]))
    scores = scorer.compute()
    assert scores.metrics() == {"wer": pytest.approx(100 * 3 / 3), "cer": pytest.approx(100 * 5 / 5)}
    assert scores.tables().splitlines() == [
        "2 samples, 3 words, 2 samples with mistakes",
        "true:      AB C",
        "predicted: AB B",
        "true:      A",
        "predicted: A B A",
    ]


def test_rates_are_of_the_whole_split_not_means_of_samples() -> None:
    scorer = SymbolScorer(PHONES)
    scorer.update([[1], [1, 2, 3]], batch([[2, 0, 0], [1, 2, 3]], [1, 3]))
    assert scorer.compute().metrics() == {"uer": pytest.approx(25)}


def test_texts_without_words() -> None:
    scorer = SymbolScorer(LETTERS)
    scorer.update([[3]], batch([[2]], [1]))
    assert scorer.compute().metrics() == {}
    assert scorer.compute().undefined().keys() == {"wer", "cer"}


@pytest.mark.parametrize(("outputs", "message"), [([[1], [2]], "2 predicted"), ([[4]], "4"), ([[-1]], "-1")])
def test_sequences_that_fit_nothing(outputs: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SymbolScorer(PHONES).update(outputs, batch([[1]], [1]))


def test_correlations_by_hand() -> None:
    truth, outputs = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 50.0]
    scorer = NumberScorer(Number())
    scorer.update(torch.tensor(outputs), batch(truth))
    found = scorer.compute().metrics()
    x, y = torch.tensor(outputs, dtype=torch.double), torch.tensor(truth, dtype=torch.double)
    pearson = ((x - x.mean()) @ (y - y.mean()) / ((x - x.mean()).norm() * (y - y.mean()).norm())).item()
    assert found["pearson"] == pytest.approx(100 * pearson)
    assert found["spearman"] == pytest.approx(100 * (1 - 6 * 4 / (5 * 24)))  # 1 - 6 sum d^2 / (n (n^2 - 1))
    assert found["pearson_and_spearman"] == pytest.approx((found["pearson"] + found["spearman"]) / 2)
    assert found["mse"] == pytest.approx((1 + 1 + 1 + 1 + 45**2) / 5)


def test_correlations_of_tiny_differences() -> None:
    scorer = NumberScorer(Number())
    scorer.update(1000 + 1e-9 * torch.arange(9, dtype=torch.double), batch(torch.arange(9.0)))
    assert scorer.compute().metrics()["pearson"] == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize(
    ("outputs", "truth", "reason"),
    [([1.0, 1.0], [0.0, 1.0], "predictions"), ([0.0, 1.0], [1.0, 1.0], "labels"), ([0.0], [1.0], "one sample")],
)
def test_correlations_that_are_undefined(outputs: list[float], truth: list[float], reason: str) -> None:
    scorer = NumberScorer(Number())
    scorer.update(torch.tensor(outputs), batch(truth))
    scores = scorer.compute()
    assert scores.metrics().keys() == {"mse"}
    assert scores.undefined().keys() == {"pearson", "spearman", "pearson_and_spearman"}
    assert all(reason in why for why in scores.undefined().values())


def test_ranks_that_would_overflow() -> None:
    scorer = NumberScorer(Number())
    scorer.update(torch.arange(70_000.0), batch(torch.arange(70_000.0)))
    assert scorer.compute().metrics()["pearson"] == pytest.approx(100)
    assert "65,535" in scorer.compute().undefined()["spearman"]


Case = tuple[Callable[[], Scorer], list[tuple[Any, Batch]]]
CASES: dict[str, Case] = {
    "classes": (
        lambda: ClassScorer(Classes(("a", "b", "c")), metrics=("mcc", "f1", "calibration_error")),
        [(torch.eye(3) * 2, batch([0, 1, 1])), (torch.eye(3)[:2], batch([2, 0])), (torch.ones(1, 3), batch([2]))],
    ),
    "multi-label": (
        lambda: MultiLabelScorer(MultiLabel(("a", "b"))),
        [(torch.randn(n, 2), batch(torch.arange(2 * n).view(n, 2) % 3 == 0)) for n in (3, 2, 1)],
    ),
    "symbols": (
        lambda: SymbolScorer(PHONES),
        [([[1, 2]], batch([[1, 3]], [2])), ([[2], []], batch([[2, 0], [3, 3]], [1, 2])), ([[3]], batch([[3]], [1]))],
    ),
    "number": (
        lambda: NumberScorer(Number(0.0, 9.0)),
        [(torch.randn(n), batch(torch.arange(float(n)))) for n in (4, 3, 2)],
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_parts_that_were_pickled_and_merged_are_the_whole(kind: str) -> None:
    make, counted = CASES[kind]
    whole = make()
    for outputs, one in counted:
        whole.update(outputs, one)
    parts = []
    for outputs, one in counted:
        part = make()
        part.update(outputs, one)
        parts.append(pickle.loads(pickle.dumps(part)))
    first, *others = [*parts, make()]  # the last has counted nothing, as a rank without samples
    first.merge_state(others)
    assert first.compute().metrics() == pytest.approx(whole.compute().metrics())
    assert first.compute().tables() == whole.compute().tables()
    assert others[0].compute().metrics() != pytest.approx(whole.compute().metrics())


@pytest.mark.parametrize("kind", CASES)
def test_nothing_scored_is_an_error(kind: str) -> None:
    with pytest.raises(ValueError, match="nothing"):
        CASES[kind][0]().compute()


@pytest.mark.parametrize("kind", CASES)
def test_a_batch_without_labels_or_with_others_is_refused(kind: str) -> None:
    make, counted = CASES[kind]
    outputs, one = counted[0]
    with pytest.raises(ValueError, match="no labels"):
        make().update(outputs, Batch(source=one.source))
    other = CASES["classes" if kind != "classes" else "number"][1][0][1]
    with pytest.raises(ValueError, match="labels must"):
        make().update(outputs, other)


@pytest.mark.parametrize("kind", ["classes", "multi-label", "number"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_refused(kind: str, value: float) -> None:
    make, counted = CASES[kind]
    outputs, one = counted[0]
    with pytest.raises(ValueError, match="not finite"):
        make().update(torch.full_like(outputs, value), one)


def test_names_of_metrics_of_which_less_is_better() -> None:
    for make, counted in CASES.values():
        scorer = make()
        for outputs, one in counted:
            scorer.update(outputs, one)
        assert scorer.lower_is_better & scorer.compute().metrics().keys()


def test_torchmetrics_is_imported_on_use() -> None:
    program = """
import sys, torch, d2v.core.jobs
from d2v.core.labels import Classes
from d2v.core.model import Batch
from d2v.core.scores import ClassScorer
scorer = ClassScorer(Classes(("a", "b")))
scorer.update(torch.eye(2), Batch(source=torch.eye(2), labels=torch.tensor([0, 1])))
scorer.compute().metrics()
assert "torchmetrics" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_transcripts_of_words_and_their_files() -> None:
    """Words of a lexicon count as they are written, not as their symbols spell them."""
    first, second = SymbolScorer(LETTERS), SymbolScorer(LETTERS)
    truth = dataclasses.replace(batch([[3, 4, 2], [5, 2, 1]], [3, 2]), ids=torch.tensor([4, 1]))
    first.update([Transcript(symbols=(2, 3, 4, 2), text="b"), [5, 2]], truth)
    second.update([[4]], dataclasses.replace(batch([[3]], [1]), ids=torch.tensor([2])))
    first.merge_state([second])
    scores = first.compute()
    assert scores.metrics()["wer"] == pytest.approx(100 * 2 / 3)
    assert scores.files == {
        "hypo.word": "C (None-1)\nB (None-2)\nb (None-4)\n",
        "ref.word": "C (None-1)\nA (None-2)\nAB (None-4)\n",
        "hypo.units": "C | (None-1)\nB (None-2)\n| A B | (None-4)\n",
        "ref.units": "C | (None-1)\nA (None-2)\nA B | (None-4)\n",
    }
    with pytest.raises(ValueError, match="9"):
        first.update([Transcript(symbols=(9,), text="x")], batch([[3]], [1]))
