"""Schedules of recipes: plain values that build the schedules of `d2v.core.train`, found by their `kind`."""

from typing import ClassVar, Protocol

from attrs import frozen

from d2v.core.durations import Duration
from d2v.core.files.kinds import add_role
from d2v.core.train import (
    BEiTCosineSchedule,
    BEiTTriPhaseSchedule,
    CosineSchedule,
    PolynomialSchedule,
    Schedule,
    TriStageSchedule,
)


class ScheduleConfig(Protocol):
    """How a rate or a weight decay changes; its peak and the length of the run are set by other keys."""

    def build(self, peak: float, total: int) -> Schedule:
        """The schedule for a peak and a number of updates."""
        ...


@frozen(kw_only=True)
class CosineConfig:
    """`CosineSchedule`; see there."""

    described_by: ClassVar[tuple[type, ...]] = (CosineSchedule,)

    warmup: Duration = 0
    min_lr: float = 0.0
    warmup_start: float | None = None

    def build(self, peak: float, total: int) -> CosineSchedule:
        """The schedule for a peak and a number of updates."""
        if self.min_lr > peak:
            raise ValueError(f"min_lr={self.min_lr} is above the peak {peak}; beit-cosine goes from low to high")
        return CosineSchedule(peak, total=total, warmup=self.warmup, min_lr=self.min_lr, warmup_start=self.warmup_start)


@frozen(kw_only=True)
class TriStageConfig:
    """`TriStageSchedule`; see there."""

    described_by: ClassVar[tuple[type, ...]] = (TriStageSchedule,)

    warmup: Duration
    hold: Duration
    decay: Duration
    init_scale: float = 0.01
    final_scale: float = 0.01

    def build(self, peak: float, total: int) -> TriStageSchedule:
        """The schedule for a peak and a number of updates."""
        return TriStageSchedule(
            peak,
            total=total,
            warmup=self.warmup,
            hold=self.hold,
            decay=self.decay,
            init_scale=self.init_scale,
            final_scale=self.final_scale,
        )


@frozen(kw_only=True)
class PolynomialConfig:
    """`PolynomialSchedule`; see there."""

    described_by: ClassVar[tuple[type, ...]] = (PolynomialSchedule,)

    warmup: Duration = 0
    end_lr: float = 0.0
    power: float = 1.0

    def build(self, peak: float, total: int) -> PolynomialSchedule:
        """The schedule for a peak and a number of updates."""
        return PolynomialSchedule(peak, total=total, warmup=self.warmup, end_lr=self.end_lr, power=self.power)


@frozen(kw_only=True)
class BEiTCosineConfig:
    """`BEiTCosineSchedule`; see there."""

    described_by: ClassVar[tuple[type, ...]] = (BEiTCosineSchedule,)

    final: float
    warmup: Duration = 0

    def build(self, peak: float, total: int) -> BEiTCosineSchedule:
        """The schedule for a peak and a number of updates."""
        return BEiTCosineSchedule(peak, final=self.final, total=total, warmup=self.warmup)


@frozen(kw_only=True)
class BEiTTriPhaseConfig:
    """`BEiTTriPhaseSchedule`; see there."""

    described_by: ClassVar[tuple[type, ...]] = (BEiTTriPhaseSchedule,)

    final: float
    warmup: Duration = 0
    decay: Duration

    def build(self, peak: float, total: int) -> BEiTTriPhaseSchedule:
        """The schedule for a peak and a number of updates."""
        return BEiTTriPhaseSchedule(peak, final=self.final, total=total, warmup=self.warmup, decay=self.decay)


add_role(
    ScheduleConfig,
    {
        "cosine": CosineConfig,
        "tri-stage": TriStageConfig,
        "polynomial": PolynomialConfig,
        "beit-cosine": BEiTCosineConfig,
        "beit-tri-phase": BEiTTriPhaseConfig,
    },
)
