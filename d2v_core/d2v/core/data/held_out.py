"""What is held out of a data set that has no part to report on: one rule for all commands.

Whether a sample is held out follows from its name and a seed alone, so that files that are added move no others.
"""

import torch
from attrs import field, frozen
from attrs.validators import ge, lt
from torch import Tensor

from d2v.core.data.draws import Purpose
from d2v.core.masks import Draw

DEFAULT_FRACTION = 0.2  # models are recorded with it: another one would report on what they were trained on
TRAIN, TEST, ALL = "train", "test", "train+test"
"""Names of the parts: what is trained on, what is held out, and both."""


@frozen(kw_only=True)
class HoldOut:
    """Which samples are kept back to report on.

    A sample is held out where a hash of (seed, its key), taken as a number from 0 to 1, is below the fraction. Of a
    class with two samples or more at least one is held out and at least one is not: where the hash gives none, the
    sample with the smallest (the largest) number. That one alone may change parts when files are added to its class.
    The only sample of a class is not held out.

    Args:
        fraction: of the samples, about; from 0 (nothing is held out) to below 1.
        seed: others are held out for another one.

    Raises:
        ValueError: if a number is out of its range.

    >>> from d2v.core.data import name_keys
    >>> keys = name_keys(f"cat/{i}.png" for i in range(1000))
    >>> held = HoldOut(fraction=0.2).of(keys)
    >>> int(held.sum()), bool((HoldOut(fraction=0.2).of(keys[:500]) == held[:500]).all())
    (198, True)
    """

    fraction: float = field(default=DEFAULT_FRACTION, validator=[ge(0), lt(1)])
    seed: int = field(default=0, validator=ge(0))

    def of(self, keys: Tensor, labels: Tensor | None = None) -> Tensor:
        """Bool `n`, True = held out.

        Args:
            keys: `name_keys` of the samples, Long `n`.
            labels: Long `n`, numbers of their classes, negative = without one; None = all are of one class.
        """
        if self.fraction == 0:
            return torch.zeros(len(keys), dtype=torch.bool)
        draw = Draw(seed=self.seed, update=0, ids=keys, purpose=Purpose.HOLD_OUT)
        numbers = draw.bits(1, 1, stream=0)[:, 0].double() * 2.0**-53
        held = numbers < self.fraction
        labels = torch.zeros(len(keys), dtype=torch.long) if labels is None else labels
        # Sorted by class and number: what has to move lies at the ends of a class.
        order = numbers.argsort(stable=True)
        order = order[labels[order].argsort(stable=True)]
        _, counts = torch.unique_consecutive(labels[order], return_counts=True)
        ends = counts.cumsum(0)
        several = counts > 1
        held[order[ends - counts]] = several
        held[order[ends - 1]] = False
        return held
