"""Accuracies as values, what each is of, and all of them as a table that a person reads."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from attrs import evolve, field, frozen
from torch import Tensor

_T = TypeVar("_T")


@frozen(kw_only=True)
class Accuracy:
    """How many samples a classifier gets right.

    Args:
        percent: 0 to 100; of several draws of labels the mean over them.
        std: standard deviation of a draw, in percent points; None where there is one draw only.
        draws: how many there were, at least 1.
        correct: Bool `draws n`, which of the n test samples each draw gets right; None where that is not known.

    >>> Accuracy(percent=83.9).std is None
    True
    """

    percent: float
    std: float | None = None
    draws: int = 1
    correct: Tensor | None = field(default=None, eq=False, repr=False)

    @classmethod
    def of(cls, draws: Sequence[float]) -> "Accuracy":
        """Mean and standard deviation (n - 1 in the denominator) over at least one draw, in percent.

        >>> Accuracy.of([70.0, 74.0])
        Accuracy(percent=72.0, std=2.8284271247461903, draws=2)
        """
        n = len(draws)
        mean = sum(draws) / n
        squares = sum((one - mean) ** 2 for one in draws)
        return cls(percent=mean, std=float((squares / (n - 1)) ** 0.5) if n > 1 else None, draws=n)

    @classmethod
    def of_correct(cls, correct: Tensor) -> "Accuracy":
        """Likewise, of Bool `draws n`: which test samples each draw gets right.

        >>> import torch
        >>> Accuracy.of_correct(torch.tensor([[True, True, False, True]])).percent
        75.0
        """
        return evolve(cls.of([100 * int(one.sum()) / len(one) for one in correct]), correct=correct.cpu())


class Case(NamedTuple):
    """What an accuracy is of.

    Args:
        features: whose: raw, untrained or pretrained.
        layers: which were read; "-" for the input.
        pooling: how; "-" for the input.
        probe: knn, linear or few.

    >>> Case("pretrained", "all", "mean", "knn").pooling
    'mean'
    """

    features: str
    layers: str
    pooling: str
    probe: str


@frozen(kw_only=True)
class ProbeResults:
    """Accuracies of probes, with what they were measured by.

    Args:
        accuracies: by what they are of.
        neighbours: k of the nearest neighbours, at least 1.
        labels: how many the few were, at least 2.
        num_train: samples that were learned from.
        num_test: samples that the accuracies are of.
        left_out: what could not be measured, and what has no samples, a line each.
        raw_name: title of the row of the raw input.

    >>> found = {Case("pretrained", "all", "mean", "knn"): Accuracy(percent=83.94)}
    >>> figures = ProbeResults(accuracies=found, neighbours=10, labels=100, num_train=10000, num_test=2000)
    >>> figures.to_plain()
    {'pretrained': {'all': {'mean': {'knn': 83.94}}}}
    >>> print(figures.table(), end="")
    features      layers    pooling             10-NN
    pretrained    all       mean                 83.9
    accuracy in percent; 10000 samples to learn from, 2000 to test
    """

    accuracies: Mapping[Case, Accuracy]
    neighbours: int
    labels: int
    num_train: int
    num_test: int
    left_out: tuple[str, ...] = ()
    raw_name: str = "raw input"

    def __or__(self, other: "ProbeResults") -> "ProbeResults":
        """These and other figures of the same probes on the same samples."""
        left_out = tuple(dict.fromkeys((*self.left_out, *other.left_out)))
        return evolve(self, accuracies={**self.accuracies, **other.accuracies}, left_out=left_out)

    def table(self) -> str:
        """The accuracies for a person: one line for each kind of features, one column for each probe."""
        titles = {"knn": f"{self.neighbours}-NN", "linear": "linear", "few": f"{self.labels} labels"}
        probes = list(dict.fromkeys(case.probe for case in self.accuracies))
        lines = [f"{'features':<14}{'layers':<10}{'pooling':<13}" + "".join(f"{titles[p]:>12}" for p in probes)]
        for row in dict.fromkeys(case[:-1] for case in self.accuracies):
            features, layers, pooling = row
            cells = "".join(f"{_cell(self.accuracies[Case(*row, probe)]):>12}" for probe in probes)
            name = self.raw_name if features == "raw" else features
            lines.append(f"{name:<14}{layers:<10}{pooling:<13}{cells}")
        told = f"accuracy in percent; {self.num_train} samples to learn from, {self.num_test} to test"
        return "\n".join([*lines, told, *(f"left out: {line}" for line in self.left_out)]) + "\n"

    def to_plain(self) -> dict[str, Any]:
        """Plain values: features -> layers -> pooling -> probe -> percent, or mean and std where there are draws."""
        return nested((case, _plain(accuracy)) for case, accuracy in self.accuracies.items())


def nested(leaves: Iterable[tuple[tuple[str, ...], _T]]) -> dict[str, Any]:
    """A tree of dictionaries, from its leaves and the keys on the way to each.

    >>> nested([(("mean", "knn"), 83.9), (("mean", "linear"), 86.0)])
    {'mean': {'knn': 83.9, 'linear': 86.0}}
    """
    tree: dict[str, Any] = {}
    for (*path, last), leaf in leaves:
        place = tree
        for key in path:
            place = place.setdefault(key, {})
        place[last] = leaf
    return tree


def _plain(accuracy: Accuracy) -> float | dict[str, float]:
    return accuracy.percent if accuracy.std is None else {"mean": accuracy.percent, "std": accuracy.std}


def _cell(accuracy: Accuracy) -> str:
    return f"{accuracy.percent:.1f}" + ("" if accuracy.std is None else f" ±{accuracy.std:.1f}")
