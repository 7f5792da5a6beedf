"""What the commands do, one Python call each, with the same keys."""

from d2v.core.jobs.evaluation import evaluate, predict
from d2v.core.jobs.finetuning import finetune
from d2v.core.jobs.pretraining import pretrain

__all__ = ["evaluate", "finetune", "predict", "pretrain"]
