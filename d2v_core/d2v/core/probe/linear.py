"""Linear probe: multinomial logistic regression on frozen features, its strength chosen on samples it did not see.

It knows nothing of encoders, and has no learning rate: the objective is convex and solved to its minimum.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from d2v.core.masks import Draw
from d2v.core.probe.labelled import Labelled, Standardisation, accuracy

STRENGTHS = tuple(10.0**-power for power in range(7))
"""The strengths that are tried: 1 down to 1e-6."""
FIXED_STRENGTH = 1e-2
"""The strength where there are too few samples to choose one."""
_HOLD_OUT = 5  # one in so many samples of a class
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
        chosen_among: strength to percent of the choice set, in the order tried; empty if there was no choice.
    """

    accuracy: float
    strength: float
    chosen_among: Mapping[float, float]


def fit_linear(
    train: Labelled,
    *,
    strength: float,
    start: LinearClassifier | None = None,
    max_iter: int = 1000,
    dtype: torch.dtype = torch.float64,
) -> LinearClassifier:
    """Minimise mean cross-entropy + strength * |W|^2 over W and b, on standardised features.

    The bias is not penalised. Full-batch L-BFGS from zero, or from another solution for the same set: the same sets
    give the same weights.

    Args:
        train: n samples of at least two classes.
        strength: of the penalty, at least 0.
        start: classifier of the same training set to start from.
        max_iter: bound on the iterations.
        dtype: of the computation.

    Returns:
        The classifier.

    Raises:
        ValueError: if the strength is negative or there are fewer than two classes.

    >>> train = Labelled(features=torch.tensor([[0.0], [1.0], [5.0], [6.0]]), labels=torch.tensor([3, 3, 7, 7]))
    >>> fit_linear(train, strength=0.1).predict(torch.tensor([[0.4], [5.2]]))
    tensor([3, 7])
    """
    if not strength >= 0:
        raise ValueError(f"strength={strength} must be at least 0")
    classes = train.classes()
    features = train.features.to(dtype)
    standardise = Standardisation.of(features) if start is None else start.standardise
    x, y = standardise(features), torch.searchsorted(classes, train.labels.long())
    if start is None:
        weight, bias = x.new_zeros(x.shape[1], len(classes)), x.new_zeros(len(classes))
    else:
        weight, bias = start.weight.detach().clone(), start.bias.detach().clone()
    _minimise(x, y, weight.requires_grad_(), bias.requires_grad_(), strength, max_iter)
    return LinearClassifier(standardise=standardise, weight=weight.detach(), bias=bias.detach(), classes=classes)


@torch.enable_grad()
def _minimise(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, strength: float, max_iter: int) -> None:
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(torch.addmm(bias, x, weight), y) + strength * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)
