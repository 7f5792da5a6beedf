"""Linear probe: multinomial logistic regression on frozen features; its penalty is chosen on held-out samples.

This module is independent of encoders. There is no learning rate: the objective is convex and solved to its minimum.
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
"""The candidate strengths of the penalty: 1 down to 1e-6."""
FIXED_STRENGTH = 1e-2
"""The strength of the penalty if there are too few samples to choose one."""
_MAX_ITER = 100
# Tolerance before the last step of the search: for a returned classifier, and for an accuracy, which needs less.
_EXACT, _ENOUGH = 1e-6, 1e-4
_WORSE = 1.0, 10  # the search ends this many percentage points, and samples, below the best accuracy
_PURPOSE = 201  # purpose of the draw of held-out samples


@frozen(kw_only=True, eq=False)
class LinearClassifier:
    """Class c with the largest w_c x + b_c of standardised features x.

    Args:
        standardise: with the training set's statistics.
        weight: float `d c`.
        bias: float `c`.
        classes: Long `c`, the labels of the columns.
    """

    standardise: Standardisation
    weight: Tensor
    bias: Tensor
    classes: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Predict labels Long `n` of features `n d`."""
        x = self.standardise(features.to(self.weight.dtype))
        return self.classes[(x @ self.weight + self.bias).argmax(1)]


@frozen(kw_only=True)
class LinearResult:
    """Result of a linear probe.

    Args:
        accuracy: percentage of the test set.
        strength: of the penalty.
        chosen_among: accuracy on the validation set by strength, in percent, in the order tried; empty if there was no
            validation set.
        correct: Bool `n`, which test samples are classified correctly.
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
    """Accuracy of the best linear classifier on frozen features, see `fit_linear`.

    Penalties are tried from the strongest to the weakest, each fit starting from the one before. The one with the
    highest accuracy on the validation set is chosen; of equal ones, the strongest. The search ends at one that is a
    percentage point, and ten samples, worse than the best. The chosen classifier is then tested on the test set.
    Without a validation set, a fifth of the training set is held out: of each class a fifth of its samples, rounded
    down, drawn by the seed; afterwards the whole training set is fitted. If fewer samples would be held out than there
    are classes, none are held out, and the strength is `FIXED_STRENGTH`, 1e-2.

    Args:
        train: samples of at least two classes.
        test: samples to test the chosen classifier on.
        val: samples of neither the training nor the test set; None = a held-out fifth of the training set.
        strengths: candidates for the strength of the penalty, each at least 0.
        seed: of the held-out samples.

    Raises:
        ValueError: if there are fewer than two classes, no strengths, a negative one, or the widths differ.

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
            break  # weaker penalties fit the training set more closely, and take longer
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

    The bias is not penalised. Newton's method (`Logistic`) starts from zero, or from another solution for the same set.
    The same set gives the same weights.

    Args:
        train: n samples of at least two classes.
        strength: of the penalty, at least 0.
        start: classifier of the same training set to start from; None = zero.
        tolerance: maximum relative distance of the objective from its minimum before the last step, above 0; after
            this step the distance is much smaller.
        max_iter: maximum number of Newton steps, at least 1.

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
    """Classifiers of one training set for several strengths, which share the preparation of the samples."""

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
    """Bool `n`, a stratified fifth of the samples; None if there are too few."""
    held = a_fifth(train, seed=seed, purpose=_PURPOSE)
    return held if int(held.sum()) >= len(train.classes()) else None
