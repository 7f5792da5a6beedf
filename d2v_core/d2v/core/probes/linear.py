"""Linear probe: multinomial logistic regression on frozen features, its strength chosen on samples it did not see.

It knows nothing of encoders, and has no learning rate: the objective is convex and solved to its minimum.
"""

from collections.abc import Iterable, Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.probes.labelled import Labelled, Standardisation, a_fifth, accuracy
from d2v.core.probes.logistic import Logistic
from d2v.core.validators import check, not_negative, positive

STRENGTHS = tuple(10.0**-power for power in range(7))
"""The strengths that are tried: 1 down to 1e-6."""
FIXED_STRENGTH = 1e-2
"""The strength where there are too few samples to choose one."""
_MAX_ITER = 100
# Of the objective, before the last step of the search: for a classifier, and for a figure, which says less.
_EXACT, _ENOUGH = 1e-6, 1e-4
_WORSE = 1.0, 10  # percent points, and samples, below the best at which the search ends
_PURPOSE = 201  # the end for which samples are held out


@frozen(kw_only=True, eq=False)
class LinearClassifier:
    """Class c with the largest w_c x + b_c of standardised features x.

    Args:
        standardise: with the training set's numbers.
        weight: float `d c`.
        bias: float `c`.
        classes: Long `c`, the labels of the columns.
    """

    standardise: Standardisation
    weight: Tensor
    bias: Tensor
    classes: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Labels Long `n` of features `n d`."""
        x = self.standardise(features.to(self.weight.dtype))
        return self.classes[(x @ self.weight + self.bias).argmax(1)]


@frozen(kw_only=True)
class LinearResult:
    """What a linear probe found.

    Args:
        accuracy: percent of the test set.
        strength: the one that was used.
        chosen_among: strength to percent of the validation set, in the order tried; empty if there was none.
        correct: Bool `n`, which test samples it gets right.
    """

    accuracy: float
    strength: float
    chosen_among: Mapping[float, float]
    correct: Tensor = field(eq=False, repr=False)


def linear_probe(
    train: Labelled,
    test: Labelled,
    *,
    val: Labelled | None = None,
    strengths: Iterable[float] = STRENGTHS,
    seed: int = 0,
) -> LinearResult:
    """Accuracy of the best linear classifier of frozen features, see `fit_linear`.

    Of all strengths, from the strongest on and each from the one before, the one with the highest accuracy on the
    validation set is taken; of equal ones the strongest. The search ends at one that is a point, and ten samples,
    worse than the best. The classifier is tried on the test set. Without a validation set a fifth of the training set
    is held out: of each class the fifth of its samples, rounded down, drawn by the seed; afterwards the whole training
    set is fitted. Were fewer samples held out than there are classes, nothing is held out, and the strength is
    `FIXED_STRENGTH`, 1e-2.

    Args:
        train: samples of at least two classes.
        test: read once, at the end.
        val: samples that are neither of the training nor of the test set.
        strengths: to choose among, each at least 0.
        seed: of what is held out.

    Raises:
        ValueError: if there are fewer than two classes, no strengths, a negative one, or widths differ.

    >>> x = torch.arange(20.0)[:, None]
    >>> train, test = (Labelled(features=x + shift, labels=(x[:, 0] > 9).long()) for shift in (0.0, 0.1))
    >>> linear_probe(train, test).accuracy
    100.0
    """
    tried = sorted(set(strengths), reverse=True)
    if not tried:
        raise ValueError("there are no strengths to choose among")
    fitted, judged = train, val
    if judged is None:
        held = _held_out(train, seed)
        if held is None:
            only = fit_linear(train, strength=FIXED_STRENGTH, tolerance=_ENOUGH)
            return _result(only, test, FIXED_STRENGTH, {})
        fitted, judged = train.take(~held), train.take(held)
    best, last = None, None
    path = _Path(fitted)
    found: dict[float, float] = {}
    for strength in tried:
        last = path.fit(strength, start=last, tolerance=_ENOUGH)
        found[strength] = accuracy(last.predict(judged.features), judged.labels)
        if best is None or found[strength] > found[best[0]]:
            best = strength, last
        elif found[strength] < found[best[0]] - max(_WORSE[0], 100 * _WORSE[1] / len(judged.labels)):
            break  # weaker ones fit the training set ever closer, and take ever longer
    assert best is not None
    strength, classifier = best
    if val is None:
        classifier = fit_linear(train, strength=strength, tolerance=_ENOUGH)
    return _result(classifier, test, strength, found)


def fit_linear(
    train: Labelled,
    *,
    strength: float,
    start: LinearClassifier | None = None,
    tolerance: float = _EXACT,
    max_iter: int = _MAX_ITER,
) -> LinearClassifier:
    """Minimise mean cross-entropy + strength * |W|^2 over W and b, on standardised features.

    The bias is not penalised. Newton's method (`Logistic`) from zero, or from another solution for the same set: the
    same sets give the same weights.

    Args:
        train: n samples of at least two classes.
        strength: of the penalty, at least 0.
        start: classifier of the same training set to start from.
        tolerance: the part of the objective by which it may lie above the minimum before the last step, above 0; after
            that step it is far less.
        max_iter: steps of Newton's method at which it ends in any case, at least 1.

    Returns:
        The classifier.

    Raises:
        ValueError: if a number is out of its range or there are fewer than two classes.

    >>> train = Labelled(features=torch.tensor([[0.0], [1.0], [5.0], [6.0]]), labels=torch.tensor([3, 3, 7, 7]))
    >>> fit_linear(train, strength=0.1).predict(torch.tensor([[0.4], [5.2]]))
    tensor([3, 7])
    """
    return _Path(train).fit(strength, start=start, tolerance=tolerance, max_iter=max_iter)


class _Path:
    """Classifiers of one training set for several strengths, which share what is worked out of the samples."""

    def __init__(self, train: Labelled) -> None:
        self.classes = train.classes()
        features = train.features.double()
        self.standardise = Standardisation.of(features)
        y = torch.searchsorted(self.classes, train.labels.long())
        self.search = Logistic(self.standardise(features), y, len(self.classes))

    def fit(
        self,
        strength: float,
        *,
        start: LinearClassifier | None = None,
        tolerance: float = _EXACT,
        max_iter: int = _MAX_ITER,
    ) -> LinearClassifier:
        """See `fit_linear`."""
        check(not_negative, strength=strength)
        check(positive, tolerance=tolerance)
        check(ge(1), max_iter=max_iter)
        begin = None if start is None else (start.weight.detach(), start.bias.detach())
        weight, bias = self.search.minimum(strength=strength, start=begin, tolerance=tolerance, max_iter=max_iter)
        return LinearClassifier(standardise=self.standardise, weight=weight, bias=bias, classes=self.classes)


def _result(
    classifier: LinearClassifier, test: Labelled, strength: float, found: Mapping[float, float]
) -> LinearResult:
    correct = classifier.predict(test.features) == test.labels
    percent = 100 * int(correct.sum()) / len(correct)
    return LinearResult(accuracy=percent, strength=strength, chosen_among=found, correct=correct)


def _held_out(train: Labelled, seed: int) -> Tensor | None:
    """Bool `n`, a stratified fifth of the samples; None if that is too few."""
    held = a_fifth(train, seed=seed, purpose=_PURPOSE)
    return held if int(held.sum()) >= len(train.classes()) else None
