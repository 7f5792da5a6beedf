"""Scores of probes with their conditions, and a readable table of all of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from attrs import evolve, field, frozen
from torch import Tensor

_T = TypeVar("_T")


@frozen(kw_only=True)
class Score:
    """Accuracy of a classifier, or error rate of a recogniser.

    Args:
        percent: 0 to 100, for error rates also more; with several draws (of labels, of initial weights), their mean.
        std: standard deviation over the draws, in percentage points; None = there is only one draw.
        draws: number of draws, at least 1.
        correct: Bool `draws n`, which of the n test samples each draw classifies correctly; None = unknown.

    >>> Score(percent=83.9).std is None
    True
    """

    percent: float
    std: float | None = None
    draws: int = 1
    correct: Tensor | None = field(default=None, eq=False, repr=False)

    @classmethod
    def of(cls, draws: Sequence[float]) -> "Score":
        """Mean and standard deviation (n - 1 in the denominator) over at least one draw, in percent.

        >>> Score.of([70.0, 74.0])
        Score(percent=72.0, std=2.8284271247461903, draws=2)
        """
        n = len(draws)
        mean = sum(draws) / n
        squares = sum((one - mean) ** 2 for one in draws)
        return cls(percent=mean, std=float((squares / (n - 1)) ** 0.5) if n > 1 else None, draws=n)

    @classmethod
    def of_correct(cls, correct: Tensor) -> "Score":
        """Accuracy from Bool `draws n`: which test samples each draw classifies correctly.

        >>> import torch
        >>> Score.of_correct(torch.tensor([[True, True, False, True]])).percent
        75.0
        """
        return evolve(cls.of([100 * int(one.sum()) / len(one) for one in correct]), correct=correct.cpu())


class Case(NamedTuple):
    """The conditions of a score.

    Args:
        features: raw, untrained or pretrained.
        layers: the layers; "-" for the raw input.
        pooling: the pooling; "-" for the raw input, and where nothing is pooled.
        probe: knn, linear, few or ctc.

    >>> Case("pretrained", "all", "mean", "knn").pooling
    'mean'
    """

    features: str
    layers: str
    pooling: str
    probe: str


@frozen(kw_only=True)
class ProbeResults:
    """Scores of probes with their settings.

    Args:
        scores: by their conditions.
        titles: title of the column of each probe.
        num_train: number of training samples.
        num_test: number of test samples.
        left_out: probes that could not run and classes without samples, one line each.
        raw_name: title of the row of the raw input.
        metric: what the scores are.
        notes: remarks on the test samples, one line each.

    >>> found = {Case("pretrained", "all", "mean", "knn"): Score(percent=83.94)}
    >>> results = ProbeResults(scores=found, titles={"knn": "10-NN"}, num_train=10000, num_test=2000)
    >>> results.to_plain()
    {'pretrained': {'all': {'mean': {'knn': 83.94}}}}
    >>> print(results.table(), end="")
    features      layers    pooling             10-NN
    pretrained    all       mean                 83.9
    accuracy in percent; 10000 training samples, 2000 test samples
    """

    scores: Mapping[Case, Score]
    titles: Mapping[str, str]
    num_train: int
    num_test: int
    left_out: tuple[str, ...] = ()
    raw_name: str = "raw input"
    metric: str = "accuracy"
    notes: tuple[str, ...] = ()

    def __or__(self, other: "ProbeResults") -> "ProbeResults":
        """These and other results of the same probes on the same samples."""
        left_out = tuple(dict.fromkeys((*self.left_out, *other.left_out)))
        return evolve(self, scores={**self.scores, **other.scores}, left_out=left_out)

    def table(self) -> str:
        """A readable table: one row for each kind of features, one column for each probe."""
        probes = list(dict.fromkeys(case.probe for case in self.scores))
        lines = [f"{'features':<14}{'layers':<10}{'pooling':<13}" + "".join(f"{self.titles[p]:>12}" for p in probes)]
        for row in dict.fromkeys(case[:-1] for case in self.scores):
            features, layers, pooling = row
            cells = "".join(f"{_cell(self.scores[Case(*row, probe)]):>12}" for probe in probes)
            name = self.raw_name if features == "raw" else features
            lines.append(f"{name:<14}{layers:<10}{pooling:<13}{cells}")
        summary = f"{self.metric} in percent; {self.num_train} training samples, {self.num_test} test samples"
        return "\n".join([*lines, summary, *(f"left out: {line}" for line in self.left_out), *self.notes]) + "\n"

    def to_plain(self) -> dict[str, Any]:
        """Plain values: features -> layers -> pooling -> probe -> percent, or mean and std if there are draws."""
        return nested((case, _plain(score)) for case, score in self.scores.items())


def nested(leaves: Iterable[tuple[tuple[str, ...], _T]]) -> dict[str, Any]:
    """A tree of dictionaries from its leaves, each with the keys of its path.

    >>> nested([(("mean", "knn"), 83.9), (("mean", "linear"), 86.0)])
    {'mean': {'knn': 83.9, 'linear': 86.0}}
    """
    tree: dict[str, Any] = {}
    for (*path, last), leaf in leaves:
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = leaf
    return tree


def _plain(score: Score) -> float | dict[str, float]:
    return score.percent if score.std is None else {"mean": score.percent, "std": score.std}


def _cell(score: Score) -> str:
    return f"{score.percent:.1f}" + ("" if score.std is None else f" ±{score.std:.1f}")
