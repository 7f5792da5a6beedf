"""The teacher: a moving average of the student, and the targets that its layers become."""

from d2v.core.teacher.average import EMATeacher
from d2v.core.teacher.schedule import EMASchedule
from d2v.core.teacher.targets import TargetAverager

__all__ = ["EMASchedule", "EMATeacher", "TargetAverager"]
