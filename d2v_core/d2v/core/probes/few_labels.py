"""Linear probe with few labels: accuracy of features when labels are scarce.

This module only draws the samples; the probe is `linear_probe`.
"""

from collections.abc import Iterable

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.masks import Draw
from d2v.core.probes.labelled import Labelled, ranks
from d2v.core.probes.linear import STRENGTHS, linear_probe
from d2v.core.probes.results import Score
from d2v.core.validators import check, must

_PURPOSE = 202  # purpose of the draw of labels


@frozen(kw_only=True)
class FewLabelResult:
    """Accuracies of all draws.

    Args:
        accuracies: percent of the test set, by draw.
        strengths: of the penalty, by draw.
        correct: Bool `draws n`, which test samples each draw classifies correctly.

    >>> correct = torch.tensor([[True, False], [True, True]])
    >>> FewLabelResult(accuracies=(50.0, 100.0), strengths=(0.1, 0.1), correct=correct).mean
    75.0
    """

    accuracies: tuple[float, ...]
    strengths: tuple[float, ...]
    correct: Tensor = field(eq=False, repr=False)

    @property
    def mean(self) -> float:
        """Mean accuracy over the draws."""
        return Score.of(self.accuracies).percent

    @property
    def std(self) -> float:
        """Standard deviation of the accuracy over the draws (n - 1 in the denominator); 0 for one draw."""
        return Score.of(self.accuracies).std or 0.0


def few_label_probe(
    train: Labelled,
    test: Labelled,
    *,
    labels: int,
    draws: int = 5,
    val: Labelled | None = None,
    strengths: Iterable[float] = STRENGTHS,
    seed: int = 0,
    balanced: bool = True,
) -> FewLabelResult:
    """Repeat a linear probe with `labels` labels in total.

    Each draw is a `linear_probe` of only the drawn samples, standardised by their own statistics. Without a validation
    set, the strength of the penalty is chosen on a held-out fifth of them, as in `linear_probe`. If that would hold out
    fewer samples than there are classes (below 5 labels in each class, if all have as many), it is `FIXED_STRENGTH`,
    1e-2.

    Args:
        train: samples to draw from.
        test: samples to test each draw on.
        labels: total number.
        draws: number of draws, at least 1.
        val: samples to choose the strength on; None = a held-out fifth of the drawn samples.
        strengths: candidates for the strength of the penalty.
        seed: of the draws.
        balanced: see `draw_labels`.

    Raises:
        ValueError: if a number is out of its range, a draw has fewer than two classes, or as in `linear_probe`.

    >>> x = torch.arange(20.0)[:, None]
    >>> samples = Labelled(features=x, labels=(x[:, 0] > 9).long())
    >>> len(few_label_probe(samples, samples, labels=4, draws=3).accuracies)
    3
    """
    check(ge(1), draws=draws)
    strengths = tuple(strengths)
    results = [
        linear_probe(
            train.take(draw_labels(train, labels, seed=seed, draw=draw, balanced=balanced)),
            test,
            val=val,
            strengths=strengths,
            seed=seed,
        )
        for draw in range(draws)
    ]
    return FewLabelResult(
        accuracies=tuple(result.accuracy for result in results),
        strengths=tuple(result.strength for result in results),
        correct=torch.stack([result.correct for result in results]),
    )


def draw_labels(samples: Labelled, labels: int, *, seed: int, draw: int, balanced: bool = True) -> Tensor:
    """Draw samples for few labels: one of each class in a random order of the classes, then another of each, and so on.

    The classes are thus as balanced as their sizes allow. A draw of fewer labels is a subset of one of more.

    Args:
        samples: n samples of at least two classes.
        labels: number of samples to draw, 2 to n.
        seed: of all draws.
        draw: number of this draw.
        balanced: False = any samples, so that classes are about as frequent as in all samples, and may be missing.

    Returns:
        Long `labels`, indices of samples.

    Raises:
        ValueError: if `labels` is out of its range or there are fewer than two classes.

    >>> samples = Labelled(features=torch.zeros(6, 1), labels=torch.tensor([0, 0, 0, 0, 1, 1]))
    >>> samples.labels[draw_labels(samples, 5, seed=0, draw=0)].sort().values
    tensor([0, 0, 0, 1, 1])
    """
    n, classes = len(samples.labels), samples.classes()
    check(must(lambda labels: 2 <= labels <= n, f"from 2 to {n}, the size of the training set"), labels=labels)
    of_sample = Draw(seed=seed, update=draw, ids=torch.arange(n), purpose=_PURPOSE)
    if not balanced:
        return of_sample.bits(1, 1, stream=0)[:, 0].argsort(stable=True)[:labels].to(samples.labels.device)
    rank, _ = ranks(samples, of_sample)
    of_class = Draw(seed=seed, update=draw, ids=torch.arange(len(classes)), purpose=_PURPOSE).bits(1, 1, stream=1)
    place = of_class[:, 0].argsort(stable=True).argsort().to(rank.device)
    target = torch.searchsorted(classes, samples.labels.long())
    return (rank * len(classes) + place[target]).argsort(stable=True)[:labels]
