"""Scorers: how well a task's outputs agree with its labels, added up batch by batch, a file for each kind of labels.

They have the form of torchmetrics (`update`, `merge_state`, `compute`) and use its metrics, which are imported when one
is computed. Nothing here knows a task or a modality.
"""

from d2v.core.scores.classes import ClassRow, ClassScorer, ClassScores
from d2v.core.scores.multi_label import MultiLabelScorer
from d2v.core.scores.number import NumberScorer
from d2v.core.scores.scores import Scores
from d2v.core.scores.symbols import SymbolScorer

__all__ = [
    "ClassRow",
    "ClassScorer",
    "ClassScores",
    "MultiLabelScorer",
    "NumberScorer",
    "Scores",
    "SymbolScorer",
]
