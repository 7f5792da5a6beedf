"""Schedule of the teacher's decay."""

from attrs import field, frozen
from attrs.validators import optional

from d2v.core.changes import may_change
from d2v.core.durations import Duration, check_update, updates
from d2v.core.validators import fraction


@frozen
class EMASchedule:
    """Teacher decay after n finished updates: linear, then constant.

    decay(n) = end - (end - start) (1 - k / anneal) with k = n - 1 + first, and end from k = anneal on.

    Args:
        start: decay at k = 0, the fraction of the teacher that is kept.
        end: decay after the annealing; None = `start`.
        anneal: length of the annealing in updates, or as a fraction of the run (a float in (0, 1]).
        total: number of updates of the run, needed if `anneal` is a fraction.
        first: k of the first update: 1 for the published models, 0 for the 1.0 image models.

    Raises:
        ValueError: if a decay is outside [0, 1], or `anneal` is a fraction and `total` is missing.

    >>> EMASchedule(0.9, end=0.99, anneal=100)(37)
    0.9333
    >>> EMASchedule(0.97, end=0.998, anneal=0.5, total=20)(10)
    0.998
    """

    start: float = field(validator=fraction)
    end: float | None = field(default=None, kw_only=True, validator=optional(fraction))
    anneal: Duration = field(default=0, kw_only=True)
    total: int | None = field(default=None, kw_only=True, metadata=may_change("length"))
    first: int = field(default=1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        updates(self.anneal, self.total)

    def __call__(self, n: int) -> float:
        """Return the decay of the teacher update after the n-th optimiser step; ValueError if n is below 1."""
        check_update(n, first=1)
        end = self.start if self.end is None else self.end
        anneal = updates(self.anneal, self.total)
        position = n - 1 + self.first
        if self.start == end or position >= anneal:
            return end
        return end - (end - self.start) * (1 - position / anneal)
