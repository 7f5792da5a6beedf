"""Nearest neighbours against sorting and counting by hand."""

import math
from collections import defaultdict
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v.core.probes import Labelled, knn_accuracy, knn_predictions, neighbours


def labelled(points, labels):
    return Labelled(features=torch.tensor(points, dtype=torch.float32), labels=torch.tensor(labels))


def by_hand(train, features, k):
    points, asked = train.features.double().tolist(), features.double().tolist()
    n, d = len(points), len(points[0])
    means = [sum(p[j] for p in points) / n for j in range(d)]
    stds = [math.sqrt(sum((p[j] - means[j]) ** 2 for p in points) / n) for j in range(d)]
    predicted = []
    for q in asked:
        distances = [math.sqrt(sum(((p[j] - q[j]) / stds[j]) ** 2 for j in range(d))) for p in points]
        votes, total = defaultdict(int), defaultdict(float)
        for i in sorted(range(n), key=distances.__getitem__)[:k]:
            votes[int(train.labels[i])] += 1
            total[int(train.labels[i])] += distances[i]
        predicted.append(min(votes, key=lambda c: (-votes[c], total[c], c)))
    return torch.tensor(predicted)


@settings(deadline=None)
@given(
    n=st.integers(4, 40),
    k=st.integers(1, 12),
    d=st.integers(1, 5),
    num_classes=st.integers(2, 6),
    offset=st.sampled_from([0.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_equals_sorting_by_hand(n, k, d, num_classes, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([1.0, 5.0, 0.2, 1.0, 3.0])[:d]
    labels = torch.arange(n) % num_classes * 3 - 1  # neither from 0 nor consecutive
    train = Labelled(features=torch.randn(n, d, generator=generator) * scales + offset, labels=labels)
    features = torch.randn(20, d, generator=generator) * scales + offset
    assert torch.equal(knn_predictions(train, features, k=min(k, n)), by_hand(train, features, min(k, n)))


@pytest.mark.parametrize(
    ("labels", "at", "k", "expected"),
    [
        ([5, 5, 2, 2], 2.4, 4, 5),  # two votes each, 5 is nearer
        ([5, 5, 2, 2], 2.6, 4, 2),
        ([2, 5, 5, 2], 2.4, 4, 5),  # 5 holds the middle
        ([5, 2, 2, 5], 2.4, 4, 2),
        ([5, 2, 2, 2], 1.0, 4, 2),  # more votes beat the nearest
        ([5, 5, 2, 2], 2.5, 4, 2),  # equally near: the smaller label
    ],
)
def test_ties_go_to_the_nearer_class(labels, at, k, expected):
    train = labelled([[1.0], [2.0], [3.0], [4.0]], labels)
    assert knn_predictions(train, torch.tensor([[at]]), k=k).tolist() == [expected]


def test_near_samples_are_distinguished_far_from_the_origin():
    """Squares and products of rows of this length lose what a tie between neighbours hangs on."""
    far = torch.zeros(1, 400)
    spread = torch.randn(20, 400) * 1e-3
    train = Labelled(
        features=torch.cat([spread + 1, spread - 1, far + 1, far + 1 + 2e-5]), labels=torch.tensor([0] * 40 + [1, 2])
    )
    asked = torch.cat([far + 1 + 0.2e-5, far + 1 + 1.8e-5])
    assert knn_predictions(train, asked, k=2).tolist() == [1, 2]


def test_every_dimension_counts_alike_and_a_constant_one_not_at_all():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 2
    telling = labels[:, None] + 0.1 * torch.randn(60, 1, generator=generator)
    loud = 1000 * torch.randn(60, 1, generator=generator)
    constant = torch.full((60, 1), 0.1)
    train = Labelled(features=torch.cat([telling, loud, constant], 1), labels=labels)
    same = knn_predictions(train, train.features, k=5)
    assert (same == labels).float().mean() > 0.9
    moved = train.features + torch.tensor([0.0, 0.0, 5.0])
    assert torch.equal(knn_predictions(train, moved, k=5), same)


def test_chunks_change_nothing(monkeypatch):
    train = Labelled(features=torch.randn(50, 3), labels=torch.arange(50) % 4)
    features = torch.randn(31, 3)
    whole = knn_predictions(train, features)
    monkeypatch.setattr(neighbours, "DISTANCES_AT_ONCE", 7 * 50)
    with patch.object(torch, "split", wraps=torch.split) as split:
        assert torch.equal(knn_predictions(train, features), whole)
    assert split.call_args.args[1] == 7


def test_accuracy_is_in_percent():
    train = labelled([[0.0], [1.0], [9.0], [10.0]], [0, 0, 1, 1])
    test = labelled([[0.5], [0.7], [9.5], [9.6]], [0, 0, 1, 7])  # no training sample has 7
    assert knn_accuracy(train, test, k=2) == 75.0


@pytest.mark.parametrize("k", [0, 5])
def test_k_is_at_most_the_training_set(k):
    with pytest.raises(ValueError, match=f"k={k}.*4"):
        knn_predictions(labelled([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]), torch.zeros(1, 1), k=k)


def test_one_class_and_other_widths_are_refused():
    with pytest.raises(ValueError, match="two classes"):
        knn_predictions(labelled([[0.0], [1.0]], [3, 3]), torch.zeros(1, 1), k=1)
    with pytest.raises(ValueError, match=r"width 2 .*width 1"):
        knn_predictions(labelled([[0.0], [1.0]], [3, 4]), torch.zeros(1, 2), k=1)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(3, 2), None, "no labels"),
        (torch.zeros(3, 2), torch.zeros(3), "integers of shape \\(3,\\)"),
        (torch.zeros(3, 2), torch.tensor([1, 2]), "not torch.int64 \\(2,\\)"),
        (torch.tensor([[0.0], [torch.nan], [torch.inf]]), torch.arange(3), "features of 2 of 3 samples are not finite"),
        (torch.zeros(3, 2, 2), torch.arange(3), "float of shape n d"),
        (torch.zeros(3, 2).long(), torch.arange(3), "float of shape n d"),
        (torch.zeros(0, 2), torch.arange(0), "no samples"),
    ],
)
def test_what_no_probe_can_use_is_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        Labelled(features=features, labels=labels)
