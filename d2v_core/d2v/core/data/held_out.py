"""Held-out samples of a data set without a test split: one rule for all commands.

Whether a sample is held out depends only on its name and a seed, so adding files does not move other files.
"""

import torch
from attrs import field, frozen
from attrs.validators import ge, lt
from torch import Tensor

from d2v.core.data.draws import Purpose
from d2v.core.masks import Draw

DEFAULT_FRACTION = 0.2  # do not change: older models would be tested on samples they were trained on
TRAIN, TEST, ALL = "train", "test", "train+test"
"""Names of the splits: training samples, held-out samples, and both."""


@frozen(kw_only=True)
class HoldOut:
    """Rule for the samples that are held out to report results on.

    A sample is held out if a hash of (seed, its key), taken as a number from 0 to 1, is below the fraction. In a class
    with two or more samples at least one is held out and at least one is not: if the hash selects none (or all), the
    sample with the smallest number is held out (the one with the largest is not). Only these two may change splits when
    files are added to their class. The only sample of a class is not held out.

    Args:
        fraction: approximate fraction of the samples, from 0 (nothing is held out) to below 1.
        seed: seed of the hash; another seed holds out other samples.

    Raises:
        ValueError: if a number is out of range.

    >>> from d2v.core.data import name_keys
    >>> keys = name_keys(f"cat/{i}.png" for i in range(1000))
    >>> held = HoldOut(fraction=0.2).of(keys)
    >>> int(held.sum()), bool((HoldOut(fraction=0.2).of(keys[:500]) == held[:500]).all())
    (198, True)
    """

    fraction: float = field(default=DEFAULT_FRACTION, validator=[ge(0), lt(1)])
    seed: int = field(default=0, validator=ge(0))

    def of(self, keys: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return Bool `n`, True = held out.

        Args:
            keys: `name_keys` of the samples, Long `n`.
            labels: Long `n`, class numbers, negative = unlabelled; None = all samples are of one class.
        """
        if self.fraction == 0:
            return torch.zeros(len(keys), dtype=torch.bool)
        numbers = self._numbers(keys)
        held = numbers < self.fraction
        labels = torch.zeros(len(keys), dtype=torch.long) if labels is None else labels
        # Sorted by class and number: the samples that may have to move are the first and the last of each class.
        order = numbers.argsort(stable=True)
        order = order[labels[order].argsort(stable=True)]
        _, counts = torch.unique_consecutive(labels[order], return_counts=True)
        ends = counts.cumsum(0)
        several = counts > 1
        held[order[ends - counts]] = several
        held[order[ends - 1]] = False
        return held

    def below(self, keys: Tensor) -> Tensor:
        """Return Bool `n`, True = the number of a sample is below the fraction: the rule without its exceptions.

        For samples that are read one after the other, so that a sample decides about itself only.

        Args:
            keys: `name_keys` of the samples, Long `n`.
        """
        return self._numbers(keys) < self.fraction

    def _numbers(self, keys: Tensor) -> Tensor:
        draw = Draw(seed=self.seed, update=0, ids=keys, purpose=Purpose.HOLD_OUT)
        return draw.bits(1, 1, stream=0)[:, 0].double() * 2.0**-53
