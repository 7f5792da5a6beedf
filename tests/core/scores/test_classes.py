"""Scores of classes against counting by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from d2v.core.scores import ClassScorer


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 12])
def test_against_counting(classes: int) -> None:
    logits, labels = torch.randn(50, classes), torch.randint(0, classes, (50,))
    scorer = ClassScorer([f"c{i}" for i in range(classes)])
    for rows, own in zip(logits.split(7), labels.split(7), strict=True):
        scorer.add(rows, own)
    scores = scorer.result()
    k = min(5, classes)
    told = logits.argmax(1).tolist()
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    for truth, guess in zip(labels.tolist(), told, strict=True):
        confusion[truth, guess] += 1
    assert scores.confusion.dtype == torch.long
    assert torch.equal(scores.confusion, confusion)
    in_top = sum(label in row.topk(k).indices for row, label in zip(logits, labels, strict=True))
    metrics = scores.metrics()
    assert metrics["accuracy"] == pytest.approx(
        100 * sum(a == b for a, b in zip(told, labels.tolist(), strict=True)) / 50
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
    scorer = ClassScorer([str(i) for i in range(10)])
    scorer.add(torch.zeros(100, 10), torch.arange(100) % 10)
    metrics = scorer.result().metrics()
    assert metrics["accuracy"] == 10
    assert metrics["top5_accuracy"] == 50


def test_tables_of_few_classes() -> None:
    scorer = ClassScorer(["cat", "dog", "eel"])
    scorer.add(5 * torch.eye(3)[[0, 0, 1]], torch.tensor([0, 1, 1]))
    assert scorer.result().tables().splitlines() == [
        "class  count  recall  precision     F1",
        "cat        1   1.000      0.500  0.667",
        "dog        2   0.500      1.000  0.667",
        "eel        0       -          -      -",
        "",
        "confusion matrix (row: class, column: told to be)",
        "   class  0  1  2",
        "0  cat    1  0  0",
        "1  dog    1  1  0",
        "2  eel    0  0  0",
    ]


def test_tables_of_many_classes_list_the_confusions() -> None:
    scorer = ClassScorer([f"c{i}" for i in range(30)])
    truth = torch.arange(30).repeat_interleave(15)
    told = truth.clone()
    for i in range(12):  # class i is taken for the next one i + 1 times
        told[15 * i : 15 * i + i + 1] += 1
    scorer.add(F.one_hot(told, 30).float(), truth)
    lines = scorer.result().tables().split("\n\n")[1].splitlines()
    assert lines[0] == "most frequent confusions"
    assert [line.split() for line in lines[2:]] == [[f"c{i}", f"c{i + 1}", str(i + 1)] for i in range(11, 1, -1)]


def test_half_precision_is_scored_in_full() -> None:
    scorer, logits = ClassScorer(["a", "b"]), torch.randn(4, 2).bfloat16()
    scorer.add(logits, torch.zeros(4, dtype=torch.long))
    expected = F.cross_entropy(logits.float(), torch.zeros(4, dtype=torch.long)).item()
    assert scorer.result().metrics()["loss"] == pytest.approx(expected)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="there are no classes to score"):
        ClassScorer([])
    scorer = ClassScorer(["a", "b"])
    with pytest.raises(
        ValueError, match=r"logits \(3, 3\) and labels \(3,\) must be \(b, 2\) and \(b,\) for 2 classes"
    ):
        scorer.add(torch.zeros(3, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="labels from -1 to 2 do not fit 2 classes"):
        scorer.add(torch.zeros(2, 2), torch.tensor([-1, 2]))
    scorer.add(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="nothing was scored"):
        scorer.result()
