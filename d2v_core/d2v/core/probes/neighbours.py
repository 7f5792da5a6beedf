"""Classification by nearest neighbours: accuracy of features without any training.

This module is independent of encoders; its results depend only on the two sets.
"""

import torch
from torch import Tensor

from d2v.core.probes.labelled import Labelled, Standardisation, accuracy
from d2v.core.validators import check, must

DISTANCES_AT_ONCE = 1 << 24  # distances held in memory at the same time


def knn_predictions(train: Labelled, features: Tensor, *, k: int = 10) -> Tensor:
    """Predict labels by majority vote among the k nearest training samples.

    Features are standardised by the training set's mean and standard deviation (dimensions that are constant there are
    ignored); distance is Euclidean. Ties between classes are resolved by the smaller sum of distances, then by the
    smaller label.

    Args:
        train: n samples with labels.
        features: float `q d`.
        k: number of neighbours, 1 to n.

    Returns:
        Labels, Long `q`.

    Raises:
        ValueError: if k is out of its range, there are fewer than two classes, or the widths differ.

    >>> train = Labelled(features=torch.tensor([[0.0], [1.0], [5.0], [6.0]]), labels=torch.tensor([3, 3, 7, 7]))
    >>> knn_predictions(train, torch.tensor([[0.4], [5.2]]), k=2)
    tensor([3, 7])
    """
    n = len(train.labels)
    check(must(lambda k: 1 <= k <= n, f"from 1 to {n}, the size of the training set"), k=k)
    classes = train.classes()
    standardise = Standardisation.of(train.features)
    known, queries = standardise(train.features), standardise(features)
    target = torch.searchsorted(classes, train.labels.long())
    parts = [
        _vote(known, target, part, k, len(classes)) for part in torch.split(queries, max(1, DISTANCES_AT_ONCE // n))
    ]
    return classes[torch.cat(parts)]


def knn_accuracy(train: Labelled, test: Labelled, *, k: int = 10) -> float:
    """Percentage of test samples that the k nearest training samples classify correctly; see `knn_predictions`.

    >>> train = Labelled(features=torch.tensor([[0.0], [1.0], [5.0], [6.0]]), labels=torch.tensor([3, 3, 7, 7]))
    >>> test = Labelled(features=torch.tensor([[0.4], [5.2]]), labels=torch.tensor([3, 3]))
    >>> knn_accuracy(train, test, k=2)
    50.0
    """
    return accuracy(knn_predictions(train, test.features, k=k), test.labels)


def nearest_samples(known: Tensor, features: Tensor, *, k: int = 10) -> Tensor:
    """The k nearest known samples of each feature vector, by the distance of `knn_predictions`.

    Args:
        known: float `n d`.
        features: float `q d`.
        k: 1 to n.

    Returns:
        Long `q k`, indices of known samples, the nearest first.

    Raises:
        ValueError: if the widths differ.

    >>> nearest_samples(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.9]]), k=2)
    tensor([[1, 0]])
    """
    standardise = Standardisation.of(known)
    return _nearest(standardise(known), standardise(features), k)


def _nearest(known: Tensor, queries: Tensor, k: int) -> Tensor:
    # |a|^2 + |b|^2 - 2 a b, without |b|^2, which does not change the order.
    order = known.square().sum(1) - 2 * queries @ known.T
    return order.topk(k, largest=False).indices


def _vote(known: Tensor, target: Tensor, queries: Tensor, k: int, num_classes: int) -> Tensor:
    index = _nearest(known, queries, k)
    # Compute distances again: the formula above loses small ones to rounding, and they decide ties between classes.
    distance = torch.stack([(queries - known[one]).norm(dim=1) for one in index.T], 1).double()
    voted = target[index]
    empty = distance.new_zeros(len(queries), num_classes)
    votes = empty.scatter_add(1, voted, torch.ones_like(distance))
    total = empty.scatter_add(1, voted, distance)
    return total.masked_fill(votes < votes.amax(1, keepdim=True), torch.inf).argmin(1)
