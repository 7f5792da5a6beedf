"""Linear probe with few labels: what features are worth where labels are dear.

It only draws the samples; the probe is that of `linear_probe`.
"""

from collections.abc import Iterable

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.masks import Draw
from d2v.core.probes.labelled import Labelled, ranks
from d2v.core.probes.linear import STRENGTHS, linear_probe
from d2v.core.probes.results import Accuracy
from d2v.core.validators import check, must

_PURPOSE = 202  # the end for which labels are drawn


@frozen(kw_only=True)
class FewLabelResult:
    """Accuracies of all draws.

    Args:
        accuracies: percent of the test set, by draw.
        strengths: those that were used, by draw.
        correct: Bool `draws n`, which test samples each draw gets right.

    >>> correct = torch.tensor([[True, False], [True, True]])
    >>> FewLabelResult(accuracies=(50.0, 100.0), strengths=(0.1, 0.1), correct=correct).mean
    75.0
    """

    accuracies: tuple[float, ...]
    strengths: tuple[float, ...]
    correct: Tensor = field(eq=False, repr=False)

    @property
    def mean(self) -> float:
        """Mean accuracy of the draws."""
        return Accuracy.of(self.accuracies).percent

    @property
    def std(self) -> float:
        """Standard deviation of the accuracy of a draw (n - 1 in the denominator); 0 of a single one."""
        return Accuracy.of(self.accuracies).std or 0.0


def few_label_probe(
    train: Labelled,
    test: Labelled,
    *,
    labels: int,
    draws: int = 5,
    val: Labelled | None = None,
    strengths: Iterable[float] = STRENGTHS,
    seed: int = 0,
) -> FewLabelResult:
    """Linear probe with `labels` labels in all, several times.

    Each draw is a `linear_probe` of the drawn samples alone, with standardisation of their own. Without a validation
    set the strength is chosen on a held-out fifth of them, as there; where that has fewer samples than there are
    classes (below 5 labels a class, if all have as many), it is `FIXED_STRENGTH`, 1e-2.

    Args:
        train: samples to draw from.
        test: tried after each draw.
        labels: in all, as balanced over the classes as can be, see `draw_labels`.
        draws: how many draws, at least 1.
        val: samples to choose the strength on.
        strengths: to choose among.
        seed: of the draws.

    Raises:
        ValueError: if a number is out of its range, there are fewer than two classes, or as `linear_probe`.

    >>> x = torch.arange(20.0)[:, None]
    >>> samples = Labelled(features=x, labels=(x[:, 0] > 9).long())
    >>> len(few_label_probe(samples, samples, labels=4, draws=3).accuracies)
    3
    """
    check(ge(1), draws=draws)
    strengths = tuple(strengths)
    results = [
        linear_probe(
            train.take(draw_labels(train, labels, seed=seed, draw=draw)),
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


def draw_labels(samples: Labelled, labels: int, *, seed: int, draw: int) -> Tensor:
    """Samples for few labels: one of each class in a drawn order of the classes, then another of each, and so on.

    So the classes are as balanced as their sizes allow, and a draw of fewer labels is a part of that of more.

    Args:
        samples: n samples of at least two classes.
        labels: how many to draw, 2 to n.
        seed: of all draws.
        draw: number of this one.

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
    rank, _ = ranks(samples, Draw(seed=seed, update=draw, ids=torch.arange(n), purpose=_PURPOSE))
    of_class = Draw(seed=seed, update=draw, ids=torch.arange(len(classes)), purpose=_PURPOSE).bits(1, 1, stream=1)
    place = of_class[:, 0].argsort(stable=True).argsort().to(rank.device)
    target = torch.searchsorted(classes, samples.labels.long())
    return (rank * len(classes) + place[target]).argsort(stable=True)[:labels]
