"""Building blocks of data2vec 2.0 and 1.0: masks, transformer blocks, teacher, model, training and files.

This package does not depend on any modality. Modalities are separate packages of the same namespace and register
themselves (`d2v.core.registry`).
"""

from d2v.core.files import save
from d2v.core.jobs import convert, evaluate, extract, finetune, load, plot, predict, pretrain, probe
from d2v.core.loss import RegressionLoss
from d2v.core.masks import BlockMasker, Draw, InverseBlockMasker, Mask, RandomMasker, SpanMasker
from d2v.core.modality import modalities
from d2v.core.model import (
    Backbone,
    Batch,
    Data2Vec,
    Local,
    MaskedHead,
    ModalityAdapter,
    MultimaskBatcher,
    VisibleDecoder,
)
from d2v.core.monitor import CollapseMonitor
from d2v.core.nn import Alibi, ConvDecoder, TransformerBlock, TransformerEncoder
from d2v.core.registry import Registry
from d2v.core.teacher import EMASchedule, EMATeacher, TargetAverager
from d2v.core.train import fit
from d2v.core.version import __version__ as __version__

__all__ = [
    "Alibi",
    "Backbone",
    "Batch",
    "BlockMasker",
    "CollapseMonitor",
    "ConvDecoder",
    "Data2Vec",
    "Draw",
    "EMASchedule",
    "EMATeacher",
    "InverseBlockMasker",
    "Local",
    "Mask",
    "MaskedHead",
    "ModalityAdapter",
    "MultimaskBatcher",
    "RandomMasker",
    "Registry",
    "RegressionLoss",
    "SpanMasker",
    "TargetAverager",
    "TransformerBlock",
    "TransformerEncoder",
    "VisibleDecoder",
    "convert",
    "evaluate",
    "extract",
    "finetune",
    "fit",
    "load",
    "modalities",
    "plot",
    "predict",
    "pretrain",
    "probe",
    "save",
]
