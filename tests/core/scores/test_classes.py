"""Scores of classes against counting by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d2v.core.labels import Classes
from d2v.core.model import Batch
from d2v.core.scores import ClassScorer


def scorer_of(count: int, **options: object) -> ClassScorer:
    return ClassScorer(Classes(tuple(f"c{i}" for i in range(count))), **options)  # type: ignore[arg-type]


def batch(labels: Tensor) -> Batch:
    return Batch(source=torch.zeros(len(labels), 1), labels=labels)


def predicting(numbers: list[int], truth: list[int], count: int, **options: object) -> ClassScorer:
    scorer = scorer_of(count, **options)
    scorer.update(F.one_hot(torch.tensor(numbers), count).float(), batch(torch.tensor(truth)))
    return scorer


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 12])
def test_against_counting(classes: int) -> None:
    logits, labels = torch.randn(50, classes), torch.randint(0, classes, (50,))
    scorer = scorer_of(classes)
    for rows, own in zip(logits.split(7), labels.split(7), strict=True):
        scorer.update(rows, batch(own))
    scores = scorer.compute()
    k = min(5, classes)
    guesses = logits.argmax(1).tolist()
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    for truth, guess in zip(labels.tolist(), guesses, strict=True):
        confusion[truth, guess] += 1
    assert scores.confusion.dtype == torch.long
    assert torch.equal(scores.confusion, confusion)
    in_top = sum(label in row.topk(k).indices for row, label in zip(logits, labels, strict=True))
    metrics = scores.metrics()
    assert metrics["accuracy"] == pytest.approx(
        100 * sum(a == b for a, b in zip(guesses, labels.tolist(), strict=True)) / 50
    )
    assert metrics[f"top{k}_accuracy"] == pytest.approx(100 * in_top / 50)
    assert metrics["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert scores.count == 50
    for i, row in enumerate(scores.rows()):
        hits, count, said = confusion[i, i].item(), confusion[i].sum().item(), confusion[:, i].sum().item()
        assert row.count == count
        for value, part, whole in (
            (row.recall, hits, count),
            (row.precision, hits, said),
            (row.f1, 2 * hits, count + said),
        ):
            assert value == part / whole if whole else math.isnan(value)


def test_a_collapsed_model_is_at_chance() -> None:
    scorer = scorer_of(10, metrics=("mcc",))
    scorer.update(torch.zeros(100, 10), batch(torch.arange(100) % 10))
    metrics = scorer.compute().metrics()
    assert metrics["accuracy"] == 10
    assert metrics["top5_accuracy"] == 50
    assert metrics["mcc"] == 0


@pytest.mark.parametrize("positives", [1, 7])
def test_mcc_of_one_answer_for_all_is_0(positives: int) -> None:
    """Of such counts torchmetrics gives a limit that is not 0."""
    scorer = predicting([1] * 10, [1] * positives + [0] * (10 - positives), 2, metrics=("mcc",))
    assert scorer.compute().metrics()["mcc"] == 0


def test_mcc_and_f1_of_two_classes() -> None:
    """3 hits of class 1, 1 missed, 2 false, 4 hits of class 0."""
    truth, guesses = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    mcc = (3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5)
    positive, negative = 2 * 3 / (2 * 3 + 2 + 1), 2 * 4 / (2 * 4 + 1 + 2)
    found = predicting(guesses, truth, 2, metrics=("mcc", "f1", "acc_and_f1"), positive="c1").compute().metrics()
    assert found["mcc"] == pytest.approx(100 * mcc)
    assert found["acc_and_f1"] == pytest.approx((found["accuracy"] + found["f1"]) / 2)
    assert found["accuracy"] != found["f1"]
    assert found["f1"] == pytest.approx(100 * positive)
    macro = predicting(guesses, truth, 2, metrics=("f1",)).compute().metrics()["f1"]
    assert macro == pytest.approx(100 * (positive + negative) / 2)


def test_f1_of_many_classes_leaves_out_those_that_do_not_occur() -> None:
    found = predicting([0, 0, 1, 2], [0, 1, 1, 2], 5, metrics=("f1", "mcc")).compute()
    assert found.metrics()["f1"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)
    # Gorodkin's R_K: covariances of the indicators, c s - sum t p over the root of the products.
    s, c, t, p = 4, 3, [1, 2, 1], [2, 1, 1]
    above = c * s - sum(a * b for a, b in zip(t, p, strict=True))
    below = math.sqrt((s * s - sum(a * a for a in t)) * (s * s - sum(a * a for a in p)))
    assert found.metrics()["mcc"] == pytest.approx(100 * above / below)


def test_calibration_error() -> None:
    """Probabilities 0.9 (3 of 4 right) and 0.6 (1 of 2 right) lie in two bins."""
    sure, right = [0.9] * 4 + [0.6] * 2, [True, True, True, False, True, False]
    logits = torch.tensor([[math.log(p), math.log(1 - p)] for p in sure])
    scorer = scorer_of(2, metrics=("calibration_error",))
    for row, hit in zip(logits, right, strict=True):
        scorer.update(row[None], batch(torch.tensor([0 if hit else 1])))
    expected = 4 / 6 * abs(0.9 - 0.75) + 2 / 6 * abs(0.6 - 0.5)
    assert scorer.compute().metrics()["calibration_error"] == pytest.approx(100 * expected, rel=1e-5)


@pytest.mark.parametrize(
    ("guesses", "truth", "count", "options", "name", "reason"),
    [
        ([0, 1], [0, 0], 2, {"metrics": ("mcc",)}, "mcc", "one class"),
        ([0, 0], [0, 0], 1, {"metrics": ("f1",)}, "f1", "only one class"),
        ([0, 1], [0, 1], 3, {"metrics": ("f1",), "positive": "c2"}, "f1", "'c2'"),
    ],
)
def test_undefined_metrics_are_left_out(
    guesses: list[int], truth: list[int], count: int, options: dict[str, object], name: str, reason: str
) -> None:
    scores = predicting(guesses, truth, count, **options).compute()
    assert name not in scores.metrics()
    assert reason in scores.undefined()[name]


def test_tables_of_few_classes() -> None:
    scorer = ClassScorer(Classes(("cat", "dog", "eel")))
    scorer.update(5 * torch.eye(3)[[0, 0, 1]], batch(torch.tensor([0, 1, 1])))
    assert scorer.compute().tables().splitlines() == [
        "class  count  recall  precision     F1",
        "cat        1   1.000      0.500  0.667",
        "dog        2   0.500      1.000  0.667",
        "eel        0       -          -      -",
        "",
        "confusion matrix (row: true class, column: predicted)",
        "   class  0  1  2",
        "0  cat    1  0  0",
        "1  dog    1  1  0",
        "2  eel    0  0  0",
    ]


def test_tables_of_many_classes_list_the_confusions() -> None:
    truth = torch.arange(30).repeat_interleave(15)
    guesses = truth.clone()
    for i in range(12):  # class i is taken for the next one i + 1 times
        guesses[15 * i : 15 * i + i + 1] += 1
    scorer = predicting(guesses.tolist(), truth.tolist(), 30)
    lines = scorer.compute().tables().split("\n\n")[1].splitlines()
    assert lines[0] == "most frequent confusions"
    assert [line.split() for line in lines[2:]] == [[f"c{i}", f"c{i + 1}", str(i + 1)] for i in range(11, 1, -1)]


def test_half_precision_is_scored_in_full() -> None:
    scorer, logits = scorer_of(2), torch.randn(4, 2).bfloat16()
    scorer.update(logits, batch(torch.zeros(4, dtype=torch.long)))
    expected = F.cross_entropy(logits.float(), torch.zeros(4, dtype=torch.long)).item()
    assert scorer.compute().metrics()["loss"] == pytest.approx(expected)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="positive='x'"):
        scorer_of(2, positive="x")
    scorer = scorer_of(2)
    with pytest.raises(ValueError, match=r"outputs \(3, 3\)"):
        scorer.update(torch.zeros(3, 3), batch(torch.zeros(3, dtype=torch.long)))
    with pytest.raises(ValueError, match=r"labels .*-1"):
        scorer.update(torch.zeros(2, 2), batch(torch.tensor([-1, 2])))
    with pytest.raises(ValueError, match="not finite"):
        scorer.update(torch.tensor([[0.0, math.nan]]), batch(torch.tensor([0])))
    scorer.update(torch.zeros(0, 2), batch(torch.zeros(0, dtype=torch.long)))
    with pytest.raises(ValueError, match="nothing"):
        scorer.compute()
