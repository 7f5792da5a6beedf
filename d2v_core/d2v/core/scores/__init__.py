"""Scorers: metrics of a task's outputs against its labels, accumulated batch by batch, one module for each label type.

They follow the interface of torchmetrics (`update`, `merge_state`, `compute`) and use its metrics, which are imported
when one is computed. They are independent of tasks and modalities.
"""

from d2v.core.scores.classes import ClassRow, ClassScorer, ClassScores
from d2v.core.scores.multi_label import MultiLabelScorer
from d2v.core.scores.number import NumberScorer
from d2v.core.scores.scores import Scores
from d2v.core.scores.symbols import SymbolScorer, Transcript

__all__ = [
    "ClassRow",
    "ClassScorer",
    "ClassScores",
    "MultiLabelScorer",
    "NumberScorer",
    "Scores",
    "SymbolScorer",
    "Transcript",
]
