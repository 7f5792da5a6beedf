"""Published sizes of data2vec 2.0 models as configurations, for the benchmarks."""

from d2v.audio import WaveformAdapterConfig
from d2v.core import EMASchedule, InverseBlockMasker, RandomMasker
from d2v.core.loss import RegressionLoss
from d2v.core.model import (
    BlockConfig,
    ContextConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    EncoderConfig,
    TargetsConfig,
    TeacherConfig,
)
from d2v.text import TextAdapterConfig
from d2v.vision import ImageAdapterConfig


def vision_base() -> Data2VecConfig:
    """ViT-B/16 at 224 pixels."""
    return Data2VecConfig(
        encoder=EncoderConfig(block=BlockConfig(dim=768, num_heads=12), depth=10),
        adapters={"vision": ImageAdapterConfig(image_size=224, patch_size=16, context=ContextConfig(depth=2))},
        predictors={"vision": ConvDecoderConfig(decoder_dim=768, num_layers=6, kernel_size=3, groups=16)},
        maskers={"vision": InverseBlockMasker(mask_prob=0.8, mask_length=3, mask_prob_adjust=0.07)},
        targets=TargetsConfig(layers=10, each=("instance",), after=("layer",)),
        teacher=TeacherConfig(schedule=EMASchedule(0.9998, end=0.99999, anneal=100_000)),
        num_masks=16,
        cls_weight=0.01,
    )


def audio_base() -> Data2VecConfig:
    """The speech model."""
    block = BlockConfig(
        dim=768, num_heads=12, norm_eps=1e-5, attention_dropout=0.1, projection_dropout=0.1, dropout=0.1
    )
    decoder = ConvDecoderConfig(decoder_dim=384, num_layers=4, kernel_size=7, groups=16, dropout=0.1)
    return Data2VecConfig(
        encoder=EncoderConfig(block=block, depth=12, layer_drop=0.05),
        adapters={"audio": WaveformAdapterConfig(context=ContextConfig(dropout=0.1, layer_drop=0.05))},
        predictors={"audio": decoder},
        maskers={"audio": InverseBlockMasker(mask_prob=0.5, mask_length=5, mask_prob_adjust=0.05, inverse=False)},
        targets=TargetsConfig(layers=8, each=("instance",)),
        teacher=TeacherConfig(schedule=EMASchedule(0.999, end=0.99999, anneal=75_000), leave_out=("adapters.*.front",)),
        num_masks=8,
    )


def text_base() -> Data2VecConfig:
    """The text model."""
    block = BlockConfig(
        dim=768, num_heads=12, norm_eps=1e-5, attention_dropout=0.1, projection_dropout=0.1, dropout=0.1
    )
    decoder = ConvDecoderConfig(
        decoder_dim=768, num_layers=5, kernel_size=9, groups=1, residual=False, projection_layers=2, dropout=0.1
    )
    return Data2VecConfig(
        encoder=EncoderConfig(block=block, depth=12),
        adapters={"text": TextAdapterConfig(vocabulary_size=50_265)},
        predictors={"text": decoder},
        maskers={"text": RandomMasker(mask_prob=0.48, pad_aware=False)},
        targets=TargetsConfig(layers=12, each=("instance",)),
        teacher=TeacherConfig(schedule=EMASchedule(0.9999, end=0.99999, anneal=100_000), leave_out=("adapters.*",)),
        loss=RegressionLoss(scale=1.0),
        num_masks=8,
    )


MODELS = {"vision/base": vision_base, "audio/base": audio_base, "text/base": text_base}
