"""Models for the benchmarks: those of recipes, and published sizes that have no recipe yet."""

import attrs

from d2v.audio import WaveformAdapterConfig
from d2v.core import EMASchedule, InverseBlockMasker, RandomMasker
from d2v.core.loss import RegressionLoss
from d2v.core.model import (
    BackboneConfig,
    BlockConfig,
    ContextConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.text import TextAdapterConfig


def config_of(name: str) -> Data2VecConfig:
    """Return the model of a recipe, or of a published size that has no recipe yet.

    Raises:
        UnknownNameError: if there is neither.
        ConfigError: if the recipe is not for pretraining.
    """
    if name in MODELS:
        return MODELS[name]()
    return read_recipe(name, {"data.path": "digits", "out": "unused"}, PretrainRecipe).model_config()


def audio_base() -> Data2VecConfig:
    """The base speech model."""
    block = BlockConfig(
        embed_dim=768, num_heads=12, norm_eps=1e-5, attention_dropout=0.1, projection_dropout=0.1, dropout=0.1
    )
    decoder = ConvDecoderConfig(decoder_dim=384, num_layers=4, kernel_size=7, groups=16, dropout=0.1)
    return Data2VecConfig(
        student=BackboneConfig(
            encoder=TransformerConfig(block=block, depth=12, layer_drop=0.05),
            adapters={"audio": WaveformAdapterConfig(context=ContextConfig(dropout=0.1, layer_drop=0.05))},
        ),
        predictors={"audio": decoder},
        maskers={"audio": InverseBlockMasker(mask_prob=0.5, mask_length=5, mask_prob_adjust=0.05, inverse=False)},
        targets=TargetsConfig(layers=8, each=("instance",)),
        teacher=TeacherConfig(schedule=EMASchedule(0.999, end=0.99999, anneal=75_000), leave_out=("adapters.*.front",)),
        num_masks=8,
    )


def text_base() -> Data2VecConfig:
    """The base text model."""
    block = BlockConfig(
        embed_dim=768, num_heads=12, norm_eps=1e-5, attention_dropout=0.1, projection_dropout=0.1, dropout=0.1
    )
    decoder = ConvDecoderConfig(
        decoder_dim=768, num_layers=5, kernel_size=9, groups=1, residual=False, projection_layers=2, dropout=0.1
    )
    return Data2VecConfig(
        student=BackboneConfig(
            encoder=TransformerConfig(block=block, depth=12),
            adapters={"text": TextAdapterConfig(vocabulary_size=50_265)},
        ),
        predictors={"text": decoder},
        maskers={"text": RandomMasker(mask_prob=0.48, pad_aware=False)},
        targets=TargetsConfig(layers=12, each=("instance",)),
        teacher=TeacherConfig(schedule=EMASchedule(0.9999, end=0.99999, anneal=100_000), leave_out=("adapters.*",)),
        loss=RegressionLoss(scale=1.0),
        num_masks=8,
    )


def audio_large() -> Data2VecConfig:
    """The large speech model."""
    block = BlockConfig(
        embed_dim=1024, num_heads=16, norm_eps=1e-5, attention_dropout=0.1, projection_dropout=0.1, dropout=0.1
    )
    decoder = ConvDecoderConfig(decoder_dim=768, num_layers=4, kernel_size=7, groups=16, dropout=0.1)
    return Data2VecConfig(
        student=BackboneConfig(
            encoder=TransformerConfig(block=block, depth=16),
            adapters={"audio": WaveformAdapterConfig(context=ContextConfig(depth=8, dropout=0.1))},
        ),
        predictors={"audio": decoder},
        maskers={"audio": InverseBlockMasker(mask_prob=0.55, mask_length=5, mask_prob_adjust=0.1, inverse=False)},
        targets=TargetsConfig(layers=16, each=("instance",)),
        teacher=TeacherConfig(schedule=EMASchedule(0.9997, end=1.0, anneal=300_000), leave_out=("adapters.*.front",)),
        num_masks=12,
    )


def text_large() -> Data2VecConfig:
    """The large text model."""
    base = text_base()
    block = attrs.evolve(base.student.encoder.block, embed_dim=1024, num_heads=16)
    encoder = attrs.evolve(base.student.encoder, block=block, depth=24)
    return attrs.evolve(
        base,
        student=attrs.evolve(base.student, encoder=encoder),
        maskers={"text": RandomMasker(mask_prob=0.5, pad_aware=False)},
        targets=TargetsConfig(layers=24, each=("layer",), after=("instance",)),
    )


MODELS = {
    "audio/base": audio_base,
    "audio/large": audio_large,
    "text/base": text_base,
    "text/large": text_large,
}
