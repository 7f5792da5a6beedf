"""The difference of two accuracies, and whether it is more than chance."""

import math
from typing import Literal

import torch
from attrs import frozen

from d2v.core.probes.results import Score

Standing = Literal["ahead", "level", "behind"]


@frozen(kw_only=True)
class Lead:
    """Difference of two accuracies, in percentage points.

    Args:
        points: the difference; negative = behind.
        error: its standard error, at least 0.

    >>> Lead(points=0.9, error=0.6).standing, Lead(points=-1.3, error=0.6).standing
    ('level', 'behind')
    """

    points: float
    error: float

    @property
    def standing(self) -> Standing:
        """Ahead or behind by more than two standard errors, or level."""
        if abs(self.points) <= 2 * self.error or self.points == 0:
            return "level"
        return "ahead" if self.points > 0 else "behind"


def lead(first: Score, second: Score, *, num_test: int) -> Lead:
    """The lead of the first accuracy over the second.

    The standard error covers the test samples and the draws of labels. If the correct samples of both are known, they
    are paired: the same samples, and the same draws if their numbers are equal. Otherwise the accuracies are treated as
    independent, which makes the error larger.

    Args:
        first: accuracy on the test samples.
        second: accuracy on the same test samples.
        num_test: number of test samples, at least 1.

    >>> a, b = (Score.of_correct(torch.tensor([row])) for row in ([True] * 8, [True] * 6 + [False] * 2))
    >>> lead(a, b, num_test=8).points
    25.0
    """
    points = first.percent - second.percent
    a, b = first.correct, second.correct
    if a is None or b is None:
        variance = sum(one.percent * (100 - one.percent) / num_test for one in (first, second))
        variance += sum((one.std or 0.0) ** 2 / max(one.draws, 1) for one in (first, second))
        return Lead(points=points, error=math.sqrt(max(variance, 0.0)))
    a, b = 100 * a.double(), 100 * b.double()
    variance = _variance_of_mean(a.mean(0) - b.mean(0))
    if len(a) == len(b):
        variance += _variance_of_mean(a.mean(1) - b.mean(1))
    else:
        variance += _variance_of_mean(a.mean(1)) + _variance_of_mean(b.mean(1))
    return Lead(points=points, error=math.sqrt(variance))


def _variance_of_mean(x: torch.Tensor) -> float:
    return float(x.var()) / len(x) if len(x) > 1 else 0.0
