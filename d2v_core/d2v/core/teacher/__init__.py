"""The teacher, an exponential moving average of the student, and the targets computed from its layers."""

from d2v.core.teacher.average import EMATeacher
from d2v.core.teacher.schedule import EMASchedule
from d2v.core.teacher.targets import TargetAverager

__all__ = ["EMASchedule", "EMATeacher", "TargetAverager"]
