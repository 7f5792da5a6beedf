"""Learning-rate schedules: functions from n, the number of finished updates, to the rate of the next update.

A schedule has no state, so resuming means calling it with another n. It does not depend on optimisers. The weight decay
of the 1.0 image models uses the same classes.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

from attrs import evolve, field, frozen
from attrs.validators import optional

from d2v.core.durations import Duration, check_update, updates
from d2v.core.validators import factor, not_negative, positive

Schedule: TypeAlias = Callable[[int], float]
"""A function from the number of finished updates to the value in the next update."""


def _line(start: float, end: float, step: int, count: int) -> float:
    """Return element `step` of `count` evenly spaced numbers from `start` to `end` inclusive; `start` if count is 1."""
    return start if count == 1 else start + (end - start) / (count - 1) * step


def _cosine(start: float, end: float, step: int, count: int) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / count))


@frozen
class CosineSchedule:
    """Linear warm-up, then half a cosine: the data2vec 2.0 models, and 1.0 text and AudioSet.

    With w = warm-up and P = total - w: start + (lr - start) n / w for n < w, then
    min_lr + (lr - min_lr) (1 + cos(pi (n - w) / P)) / 2. The first update has rate 0, as published. At n = total a
    further period of length P begins, with `shrink` times the rates. If the peak is below `min_lr` (possible with layer
    decay), `min_lr` is lowered to the peak and the rate is constant.

    Args:
        lr: peak rate.
        total: number of updates of the run.
        warmup: length of the warm-up in updates, or as a fraction of the run (a float).
        min_lr: rate at the end.
        warmup_start: rate of the first update; None = `min_lr`.
        shrink: factor on the rates of each further period.

    Raises:
        ValueError: if a rate is negative, or the warm-up is as long as the run.

    >>> schedule = CosineSchedule(1e-3, total=1000, warmup=0.1)
    >>> schedule(0), schedule(50), schedule(100), schedule(550)
    (0.0, 0.0005, 0.001, 0.0005)
    """

    lr: float = field(validator=not_negative)
    total: int = field(kw_only=True, validator=positive)
    warmup: Duration = field(default=0, kw_only=True)
    min_lr: float = field(default=0.0, kw_only=True, validator=not_negative)
    warmup_start: float | None = field(default=None, kw_only=True, validator=optional(not_negative))
    shrink: float = field(default=0.1, kw_only=True, validator=factor)

    def __attrs_post_init__(self) -> None:
        _check_warmup(self.warmup, self.total)

    def __call__(self, n: int) -> float:
        """Return the rate of the update that follows `n` finished ones; ValueError if n is negative."""
        check_update(n)
        warmup = updates(self.warmup, self.total)
        low = min(self.min_lr, self.lr)
        if n < warmup:
            start = low if self.warmup_start is None else self.warmup_start
            return start + (self.lr - start) / warmup * n
        period = self.total - warmup
        restarts, step = divmod(n - warmup, period)
        return math.pow(self.shrink, restarts) * _cosine(self.lr, low, step, period)

    def scaled(self, factor: float) -> "CosineSchedule":
        """Return the schedule with a scaled peak; the lowest rate is not scaled, as published for layer decay.

        >>> CosineSchedule(1e-3, total=10, min_lr=1e-4).scaled(0.5)(0)
        0.0005
        """
        return evolve(self, lr=self.lr * factor)


@frozen
class TriStageSchedule:
    """Linear warm-up, hold, exponential decay: 1.0 audio and CTC fine-tuning.

    With stages of W, H and D updates: lr (i + (1 - i) n / W) where i = `init_scale`; then lr; then
    lr exp(ln(final_scale) k / D) for step k = 0 .. D of the decay; then lr final_scale. A run may end before the decay
    does, or go on after it.

    Args:
        lr: peak rate.
        warmup: W, in updates or as a fraction of the run (a float).
        hold: H, in updates or as a fraction of the run (a float).
        decay: D, in updates or as a fraction of the run (a float).
        total: number of updates of the run; needed if a stage is a fraction.
        init_scale: first rate as a fraction of the peak.
        final_scale: last rate as a fraction of the peak.

    Raises:
        ValueError: if a rate is negative, a scale is outside (0, 1], warm-up and hold are longer than the run, or all
            stages are fractions that do not sum to 1.

    >>> schedule = TriStageSchedule(5e-4, warmup=0.1, hold=0.4, decay=0.5, total=1000)
    >>> schedule(0), schedule(100), schedule(500), schedule(1001)
    (5e-06, 0.0005, 0.0005, 5e-06)
    """

    lr: float = field(validator=not_negative)
    warmup: Duration = field(kw_only=True)
    hold: Duration = field(kw_only=True)
    decay: Duration = field(kw_only=True)
    total: int | None = field(default=None, kw_only=True)
    init_scale: float = field(default=0.01, kw_only=True, validator=factor)
    final_scale: float = field(default=0.01, kw_only=True, validator=factor)

    def __attrs_post_init__(self) -> None:
        stages = (self.warmup, self.hold, self.decay)
        if all(isinstance(stage, float) for stage in stages) and not math.isclose(sum(stages), 1):
            raise ValueError(
                f"warmup={self.warmup}, hold={self.hold} and decay={self.decay} are fractions of the run and sum to "
                f"{sum(stages):.6g}; they must sum to 1"
            )
        # Three published recipes give a decay in updates that the end of the run cuts off.
        started = sum(self._stages()[:2])
        if self.total is not None and started > self.total:
            raise ValueError(f"warmup + hold take {started} updates, more than the run (total={self.total})")

    def _stages(self) -> tuple[int, int, int]:
        warmup = updates(self.warmup, self.total, name="warmup")
        hold = updates(self.hold, self.total, name="hold")
        return warmup, hold, updates(self.decay, self.total, name="decay")

    def __call__(self, n: int) -> float:
        """Return the rate of the update that follows `n` finished ones; ValueError if n is negative."""
        check_update(n)
        warmup, hold, decay = self._stages()
        if n < warmup:
            start = self.init_scale * self.lr
            return start + (self.lr - start) / warmup * n
        step = n - warmup - hold
        if step < 0:
            return self.lr
        # In a short run the decay may be rounded down to 0 updates: then only the last rate remains.
        if step > decay or decay == 0:
            return self.lr * self.final_scale
        return self.lr * math.exp(math.log(self.final_scale) * step / decay)


@frozen
class PolynomialSchedule:
    """Linear warm-up, then polynomial decay: GLUE fine-tuning (power 1).

    With w = warm-up: lr n / w for n <= w, then end_lr + (lr - end_lr) (1 - (n - w) / (total - w))^power, then end_lr.

    Args:
        lr: peak rate.
        total: number of updates of the run.
        warmup: length of the warm-up in updates, or as a fraction of the run (a float).
        end_lr: rate from `total` on.
        power: exponent; 1 = linear.

    Raises:
        ValueError: if a rate or the power is negative, or the warm-up is as long as the run.

    >>> schedule = PolynomialSchedule(2e-5, total=100, warmup=20)
    >>> schedule(10), schedule(20), schedule(60), schedule(100)
    (1e-05, 2e-05, 1e-05, 0.0)
    """

    lr: float = field(validator=not_negative)
    total: int = field(kw_only=True, validator=positive)
    warmup: Duration = field(default=0, kw_only=True)
    end_lr: float = field(default=0.0, kw_only=True, validator=not_negative)
    power: float = field(default=1.0, kw_only=True, validator=positive)

    def __attrs_post_init__(self) -> None:
        _check_warmup(self.warmup, self.total)

    def __call__(self, n: int) -> float:
        """Return the rate of the update that follows `n` finished ones; ValueError if n is negative."""
        check_update(n)
        warmup = updates(self.warmup, self.total)
        if n < warmup:
            return self.lr * n / warmup
        if n >= self.total:
            return self.end_lr
        left = 1 - (n - warmup) / (self.total - warmup)
        return self.end_lr + (self.lr - self.end_lr) * math.pow(left, self.power)


@frozen
class BEiTCosineSchedule:
    """Linear warm-up, then half a cosine, in BEiT's form: 1.0 images, learning rate and weight decay.

    With w = warm-up: value n / (w - 1) for n < w, so the peak is one update earlier than in `CosineSchedule`; then
    final + (value - final) (1 + cos(pi (n - w) / (total - w))) / 2, then final.

    Args:
        value: peak rate, or the first weight decay.
        final: value at the end.
        total: number of updates of the run.
        warmup: length of the warm-up in updates, or as a fraction of the run (a float).

    Raises:
        ValueError: if a value is negative, or the warm-up is as long as the run.

    >>> schedule = BEiTCosineSchedule(2e-3, final=1e-5, total=100, warmup=11)
    >>> schedule(0), schedule(5), schedule(10), schedule(11), schedule(100)
    (0.0, 0.001, 0.002, 0.002, 1e-05)
    """

    value: float = field(validator=not_negative)
    final: float = field(kw_only=True, validator=not_negative)
    total: int = field(kw_only=True, validator=positive)
    warmup: Duration = field(default=0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check_warmup(self.warmup, self.total)

    def __call__(self, n: int) -> float:
        """Return the value of the update that follows `n` finished ones; ValueError if n is negative."""
        check_update(n)
        warmup = updates(self.warmup, self.total)
        if n < warmup:
            return _line(0.0, self.value, n, warmup)
        period = self.total - warmup
        return _cosine(self.value, self.final, min(n - warmup, period), period)


@frozen
class BEiTTriPhaseSchedule:
    """Linear warm-up, hold, linear decay: BEiT's alternative to the cosine.

    The last update of the warm-up and the first of the decay are at the peak. The last update of the run is at `final`.

    Args:
        value: peak.
        final: value at the end.
        total: number of updates of the run.
        warmup: length of the warm-up in updates, or as a fraction of the run (a float).
        decay: length of the decay in updates, or as a fraction of the run (a float).

    Raises:
        ValueError: if a value is negative, or warm-up and decay are longer than the run.

    >>> schedule = BEiTTriPhaseSchedule(1e-3, final=1e-5, total=40, warmup=0.1, decay=0.25)
    >>> schedule(0), schedule(3), schedule(30), round(schedule(39), 9)
    (0.0, 0.001, 0.001, 1e-05)
    """

    value: float = field(validator=not_negative)
    final: float = field(kw_only=True, validator=not_negative)
    total: int = field(kw_only=True, validator=positive)
    warmup: Duration = field(default=0, kw_only=True)
    decay: Duration = field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        needed = updates(self.warmup, self.total, name="warmup") + updates(self.decay, self.total, name="decay")
        if needed > self.total:
            raise ValueError(f"warmup + decay take {needed} updates, more than the run (total={self.total})")

    def __call__(self, n: int) -> float:
        """Return the value of the update that follows `n` finished ones; ValueError if n is negative."""
        check_update(n)
        warmup, decay = updates(self.warmup, self.total), updates(self.decay, self.total)
        if n < warmup:
            return _line(0.0, self.value, n, warmup)
        if n >= self.total:
            return self.final
        step = n - (self.total - decay)
        return self.value if step < 0 else _line(self.value, self.final, step, decay)


def _check_warmup(warmup: Duration, total: int) -> None:
    count = updates(warmup, total, name="warmup")
    if count >= total:
        raise ValueError(f"warmup={warmup} is {count} updates, as long as the run or longer (total={total})")
