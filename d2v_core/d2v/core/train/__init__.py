"""Training: loop, schedules, optimiser, run folder, metrics and progress, each replaceable."""

from d2v.core.train.debug import SavedUpdate
from d2v.core.train.freezing import Freeze
from d2v.core.train.groups import LayerDecay, parameter_groups, set_rates, set_weight_decay
from d2v.core.train.heartbeat import RankError
from d2v.core.train.loop import Fitted, fit
from d2v.core.train.loss_scale import LossScale, NonFiniteError
from d2v.core.train.optimizer import PublishedAdamW
from d2v.core.train.progress import Progress
from d2v.core.train.ranks import connected
from d2v.core.train.run_config import RunFolderError
from d2v.core.train.run_folder import RunFolder
from d2v.core.train.schedules import (
    BEiTCosineSchedule,
    BEiTTriPhaseSchedule,
    CosineSchedule,
    PolynomialSchedule,
    Schedule,
    TriStageSchedule,
)
from d2v.core.train.signals import Interrupted
from d2v.core.train.sinks import JsonLines, MetricSink, TensorBoard
from d2v.core.train.skipping import LossSpikeError, Skipping
from d2v.core.train.source import BatchSource, MemorySource
from d2v.core.train.strategies import Replicated, Sharded, Strategy, strategy_by_name
from d2v.core.train.trackers import MLflow, WandB
from d2v.core.train.validation import Validation

__all__ = [
    "BEiTCosineSchedule",
    "BEiTTriPhaseSchedule",
    "BatchSource",
    "CosineSchedule",
    "Fitted",
    "Freeze",
    "Interrupted",
    "JsonLines",
    "LayerDecay",
    "LossScale",
    "LossSpikeError",
    "MLflow",
    "MemorySource",
    "MetricSink",
    "NonFiniteError",
    "PolynomialSchedule",
    "Progress",
    "PublishedAdamW",
    "RankError",
    "Replicated",
    "RunFolder",
    "RunFolderError",
    "SavedUpdate",
    "Schedule",
    "Sharded",
    "Skipping",
    "Strategy",
    "TensorBoard",
    "TriStageSchedule",
    "Validation",
    "WandB",
    "connected",
    "fit",
    "parameter_groups",
    "set_rates",
    "set_weight_decay",
    "strategy_by_name",
]
