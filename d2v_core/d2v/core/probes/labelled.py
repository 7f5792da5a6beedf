"""Features with their labels, and steps that all probes share.

All checks of a probe's input are here, so that probes can rely on valid input.
"""

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from d2v.core.masks import Draw

_TEST = 203  # purpose of the draw of held-out test samples


@frozen(kw_only=True, eq=False)
class Labelled:
    """Feature vectors and the class of each.

    Args:
        features: float `n d`, n >= 1, finite.
        labels: integers `n`; they need not be consecutive.

    Raises:
        ValueError: if there are no labels or no samples, a feature is not finite, or a shape does not fit.

    >>> Labelled(features=torch.zeros(3, 2), labels=torch.tensor([0, 1, 0])).take(torch.tensor([1])).labels
    tensor([1])
    """

    features: Tensor = field()
    labels: Tensor = field()

    @features.validator
    def _check_features(self, _: "Attribute[Tensor]", features: Tensor) -> None:
        if features.dim() != 2 or not features.is_floating_point():
            raise ValueError(f"features must be float of shape n d, not {features.dtype} {tuple(features.shape)}")
        if features.shape[0] == 0:
            raise ValueError("there are no samples to probe")
        bad = ~features.isfinite().all(1)
        if bad.any():
            raise ValueError(f"the features of {int(bad.sum())} of {len(bad)} samples are not finite (NaN or infinity)")

    @labels.validator
    def _check_labels(self, _: "Attribute[Tensor]", labels: Tensor | None) -> None:
        if labels is None:
            raise ValueError("there are no labels; a probe needs one integer for each sample")
        if labels.is_floating_point() or labels.shape != self.features.shape[:1]:
            raise ValueError(
                f"labels must be integers of shape {tuple(self.features.shape[:1])}, one for each sample, "
                f"not {labels.dtype} {tuple(labels.shape)}"
            )

    def take(self, index: Tensor) -> "Labelled":
        """The samples at indices Long `index`, or where Bool `index` is True."""
        return Labelled(features=self.features[index], labels=self.labels[index])

    def classes(self) -> Tensor:
        """Long `c`, the labels that occur, in ascending order.

        Raises:
            ValueError: if there are fewer than two.
        """
        classes: Tensor = torch.unique(self.labels.long())
        if len(classes) < 2:
            raise ValueError(
                f"a probe needs at least two classes, but every training label is {int(classes[0])} "
                f"({len(self.labels)} samples)"
            )
        return classes


@frozen(kw_only=True, eq=False)
class Standardisation:
    """(x - mean) / std by dimension, with the statistics of a training set; 0 where the training set is constant.

    Args:
        mean: `d`.
        scale: `d`, 1 / std, or 0 where the training set is constant.

    >>> train = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    >>> Standardisation.of(train)(torch.tensor([[4.0, 6.0]]))
    tensor([[2., 0.]])
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, train: Tensor) -> "Standardisation":
        """The statistics of a training set, float `n d`."""
        variance, mean = torch.var_mean(train, 0, correction=0)
        return cls(mean=mean, scale=torch.where(variance > 0, variance.rsqrt(), 0))

    def __call__(self, x: Tensor) -> Tensor:
        """Standardise `n d`.

        Raises:
            ValueError: if the width differs from that of the training set.
        """
        if x.shape[1] != self.mean.shape[0]:
            raise ValueError(f"features of width {x.shape[1]} do not fit training features of width {len(self.mean)}")
        return (x - self.mean) * self.scale


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Percentage of correct predictions, Long `n`.

    >>> accuracy(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5]))
    75.0
    """
    return 100 * int((predicted == labels).sum()) / len(labels)


def hold_out(samples: Labelled, *, seed: int) -> tuple[Labelled, Labelled]:
    """Hold out a fifth of the samples of each class, rounded down, drawn by the seed: for data without a test split.

    Returns:
        The remaining samples, and the held-out ones.

    Raises:
        ValueError: if no samples would be held out.

    >>> rest, held = hold_out(Labelled(features=torch.zeros(15, 1), labels=torch.arange(15) % 2), seed=0)
    >>> len(rest.labels), held.labels.sort().values
    (13, tensor([0, 1]))
    """
    held = a_fifth(samples, seed=seed, purpose=_TEST)
    if not held.any():
        raise ValueError("no class has five samples, so none can be held out for testing; give a test split")
    return samples.take(~held), samples.take(held)


def a_fifth(samples: Labelled, *, seed: int, purpose: int) -> Tensor:
    """Bool `n`, a fifth of the samples of each class, rounded down."""
    rank, count = ranks(samples, Draw(seed=seed, update=0, ids=torch.arange(len(samples.labels)), purpose=purpose))
    return rank < count // 5


def ranks(samples: Labelled, draw: Draw) -> tuple[Tensor, Tensor]:
    """Ranks of the samples in a random order within their class, and the sizes of their classes, both Long `n`."""
    labels = samples.labels.cpu()
    _, target, count = torch.unique(labels, return_inverse=True, return_counts=True)
    order = draw.bits(1, 1, stream=0)[:, 0].argsort(stable=True)
    order = order[target[order].argsort(stable=True)]
    start = count.cumsum(0) - count
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - start[target[order]]
    return rank.to(samples.labels.device), count[target].to(samples.labels.device)
