"""Model: batches, adapters, backbone, predictors and the training step."""

from d2v.core.model.adapter import ExtraTokens, MaskToken, ModalityAdapter
from d2v.core.model.backbone import Backbone, Encodes, Student
from d2v.core.model.batch import Batch, Encoded, Known, Layout, Local, Tokens
from d2v.core.model.batcher import MultimaskBatcher
from d2v.core.model.composition import Data2Vec, StepOutput
from d2v.core.model.config import (
    BackboneConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    ModelConfig,
    PredictorConfig,
    StudentConfig,
    TargetsConfig,
    TeacherConfig,
)
from d2v.core.model.parts import (
    AdapterConfig,
    AdapterParts,
    AlibiConfig,
    BlockConfig,
    ContextConfig,
    EncoderConfig,
    TransformerConfig,
)
from d2v.core.model.predictors import MaskedHead, Predictor, VisibleDecoder

__all__ = [
    "AdapterConfig",
    "AdapterParts",
    "AlibiConfig",
    "Backbone",
    "BackboneConfig",
    "Batch",
    "BlockConfig",
    "ContextConfig",
    "ConvDecoderConfig",
    "Data2Vec",
    "Data2VecConfig",
    "Encoded",
    "EncoderConfig",
    "Encodes",
    "ExtraTokens",
    "Known",
    "Layout",
    "Local",
    "MaskToken",
    "MaskedHead",
    "MaskedHeadConfig",
    "ModalityAdapter",
    "ModelConfig",
    "MultimaskBatcher",
    "Predictor",
    "PredictorConfig",
    "StepOutput",
    "Student",
    "StudentConfig",
    "TargetsConfig",
    "TeacherConfig",
    "Tokens",
    "TransformerConfig",
    "VisibleDecoder",
]
