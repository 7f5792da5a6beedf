"""Linear probe: multinomial logistic regression on frozen features, its strength chosen on samples it did not see.

It knows nothing of encoders, and has no learning rate: the objective is convex and solved to its minimum.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.probes.labelled import Labelled, Standardisation, a_fifth, accuracy
from d2v.core.validators import check

STRENGTHS = tuple(10.0**-power for power in range(7))
"""The strengths that are tried: 1 down to 1e-6."""
FIXED_STRENGTH = 1e-2
"""The strength where there are too few samples to choose one."""
# For a classifier, and for a figure. With the second, and `_enough`, figures of pixels and of features of Fashion-MNIST
# were within 0.2 points of the exact ones at the strengths that are chosen, in a fifth of the time.
_MAX_ITER, _FEW_ITER = 1000, 200
_EXACT = 1e-6  # largest entry of the gradient at the minimum
_DOUBLE = 1e-5  # below it float32 does not tell the gradient from its rounding
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
    """

    accuracy: float
    strength: float
    chosen_among: Mapping[float, float]


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
            only = fit_linear(train, strength=FIXED_STRENGTH, tolerance=_enough(FIXED_STRENGTH), max_iter=_FEW_ITER)
            return _result(only, test, FIXED_STRENGTH, {})
        fitted, judged = train.take(~held), train.take(held)
    best, last = None, None
    found: dict[float, float] = {}
    for strength in tried:
        last = fit_linear(fitted, strength=strength, start=last, tolerance=_enough(strength), max_iter=_FEW_ITER)
        found[strength] = accuracy(last.predict(judged.features), judged.labels)
        if best is None or found[strength] > found[best[0]]:
            best = strength, last
        elif found[strength] < found[best[0]] - max(_WORSE[0], 100 * _WORSE[1] / len(judged.labels)):
            break  # weaker ones fit the training set ever closer, and take ever longer
    assert best is not None
    strength, classifier = best
    if val is None:
        classifier = fit_linear(train, strength=strength, tolerance=_enough(strength), max_iter=_FEW_ITER)
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

    The bias is not penalised. Full-batch L-BFGS from zero, or from another solution for the same set: the same sets
    give the same weights.

    Args:
        train: n samples of at least two classes.
        strength: of the penalty, at least 0.
        start: classifier of the same training set to start from.
        tolerance: largest entry of the gradient, in coordinates of equal curvature, at which the search ends; from 1e-5
            on it runs in float32.
        max_iter: iterations at which it ends in any case.

    Returns:
        The classifier.

    Raises:
        ValueError: if the strength is negative or there are fewer than two classes.

    >>> train = Labelled(features=torch.tensor([[0.0], [1.0], [5.0], [6.0]]), labels=torch.tensor([3, 3, 7, 7]))
    >>> fit_linear(train, strength=0.1).predict(torch.tensor([[0.4], [5.2]]))
    tensor([3, 7])
    """
    check(ge(0), strength=strength)
    classes = train.classes()
    features = train.features.double() if tolerance < _DOUBLE else train.features.float()
    standardise = Standardisation.of(features) if start is None else start.standardise
    x, y = standardise(features), torch.searchsorted(classes, train.labels.long())
    if start is None:
        weight, bias = x.new_zeros(x.shape[1], len(classes)), x.new_zeros(len(classes))
    else:
        weight, bias = start.weight.detach().to(x.dtype), start.bias.detach().to(x.dtype, copy=True)
    weight, bias = _minimum(x, y, weight, bias, strength, tolerance, max_iter)
    return LinearClassifier(standardise=standardise, weight=weight, bias=bias, classes=classes)


def _enough(strength: float) -> float:
    """The tolerance that a figure needs: under a weak penalty a small gradient is still far from the minimum."""
    return min(5e-5, max(strength / 5, _DOUBLE))


def _result(
    classifier: LinearClassifier, test: Labelled, strength: float, found: Mapping[float, float]
) -> LinearResult:
    percent = accuracy(classifier.predict(test.features), test.labels)
    return LinearResult(accuracy=percent, strength=strength, chosen_among=found)


def _held_out(train: Labelled, seed: int) -> Tensor | None:
    """Bool `n`, a stratified fifth of the samples; None if that is too few."""
    held = a_fifth(train, seed=seed, purpose=_PURPOSE)
    return held if int(held.sum()) >= len(train.classes()) else None


def _minimum(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, strength: float, tolerance: float, max_iter: int
) -> tuple[Tensor, Tensor]:
    """W and b at the minimum, found in coordinates in which it is about as curved in all directions.

    Raw pixels are so correlated that plain L-BFGS takes minutes. The Hessian is bounded by that of least squares
    (Boehning 1992), whose Cholesky factor F is cheap: W = F^-T V, and V is what is searched for.
    """
    n, d = x.shape
    # With fewer samples than features the minimum lies in the span of the samples.
    basis = torch.linalg.qr(x.T).Q if n < d else None
    if basis is not None:
        x, weight = x @ basis, basis.T @ weight
    curvature = (x.T @ x).double() / (n * weight.shape[1])
    # So that there is a factor without a penalty too, and where features depend on each other.
    least = 1e-10 * curvature.diagonal().mean() + 1e-300
    curvature.diagonal().add_(2 * strength + least)
    factor = torch.linalg.cholesky(curvature)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor), out=torch.empty_like(factor)), upper=False)
    inverse = inverse.to(x.dtype)
    z = x @ inverse.T
    # One row a class: the gradient's product is several times faster than with one column a class.
    v = (weight.T @ factor.to(x.dtype)).requires_grad_()
    b = bias.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [v, b],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=tolerance,
        tolerance_change=1e-4 * tolerance,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = F.cross_entropy(F.linear(z, v, b), y) + strength * (v @ inverse).square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]  # torch has no types here
    weight = (v.detach() @ inverse).T
    return weight if basis is None else basis @ weight, b.detach()
