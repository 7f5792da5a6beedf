"""Training: schedules and optimiser."""

from d2v.core.train.optimizer import PublishedAdamW, parameter_groups
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
    "PublishedAdamW",
    "Schedule",
    "TriStageSchedule",
    "parameter_groups",
]
