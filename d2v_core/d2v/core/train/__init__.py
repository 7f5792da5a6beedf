"""Training: schedules and optimiser."""

from d2v.core.train.schedules import (
    BEiTCosineSchedule,
    BEiTTriPhaseSchedule,
    CosineSchedule,
    PolynomialSchedule,
    Schedule,
    TriStageSchedule,
)

__all__ = [
    "BEiTCosineSchedule",
    "BEiTTriPhaseSchedule",
    "CosineSchedule",
    "PolynomialSchedule",
    "Schedule",
    "TriStageSchedule",
]
