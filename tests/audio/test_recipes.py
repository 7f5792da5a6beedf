"""The published speech recipes hold the published numbers, and build."""

from typing import Any

import pytest
import torch

from d2v.audio import AudioDataConfig, LogMelAdapterConfig, WaveformAdapterConfig
from d2v.core.masks import InverseBlockMasker, SpanMasker
from d2v.core.model import ConvDecoderConfig, MaskedHeadConfig
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.core.recipes.schedules import CosineConfig, TriStageConfig

GIVEN = {"data.path": "recordings", "out": "run"}

# As published (2.0: Baevski et al. 2022, arXiv:2212.07525; 1.0: arXiv:2202.03555, and the configurations released with
# them), one column a model. Of the 1.0 large model only the size is published.
COLUMNS = ("base", "large", "v1-base", "v1-audioset", "v1-large")
TABLE: dict[str, tuple[Any, ...]] = {
    "embed_dim": (768, 1024, 768, 768, 1024),
    "num_heads": (12, 16, 12, 12, 16),
    "depth": (12, 16, 12, 12, 24),
    "prenet depth": (0, 8, None, None, None),
    "mlp ratio": (4,) * 5,
    "norm eps": (1e-5,) * 5,
    "norm": ("post",) * 5,
    "norms of the encoder": ((False, False), (False, False), (True, False), (True, False), (True, False)),
    "targets": (8, 16, 8, 12, 8),
    "clones": (8, 12, 1, 1, 1),
    "each": (("instance",),) * 5,
    "after": ((), (), (), ("layer",), ()),
    "loss": ((0, None, "sum"),) * 5,
    "cls": (0,) * 5,
    "stop": ((0.1, 0.01),) * 5,
    "ema": ((0.999, 0.99999), (0.9997, 1.0), (0.999, 0.9999), (0.999, 0.9999), (0.999, 0.9999)),
    "anneal": (75_000, 300_000, 30_000, 30_000, 30_000),
    "teacher lacks": (
        ("adapters.*.front",),
        ("adapters.*.front",),
        *((("adapters.*.front", "adapters.*.mask_token"),) * 3),
    ),
    "teacher copies": ((), (), ("adapters.*.positions",), (), ("adapters.*.positions",)),
    "encoder, attention, post-mlp dropout": ((0.1, 0.1, 0.1),) * 5,
    "activation, input dropout": ((0.0, 0.0),) * 5,
    "dropout after the first norm": (0.1, 0.1, 0.1, 0.1, 0.1),
    "layer drop": (0.05, 0.0, 0.05, 0.05, 0.05),
    "prenet layer drop": (0.05, 0.0, None, None, None),
    "positions": ((5, 95, 16),) * 5,
    "extractor": ((7, 320, "layer", False),) * 5,
    "alibi": ((True, True, False),) * 2 + (None,) * 3,
    "extra tokens": (0,) * 5,
    "mask": ((0.5, 0.05, 5, False), (0.55, 0.1, 5, False), (0.65, 10, True), (0.65, 10, True), (0.65, 10, True)),
    "predictor": ((384, 16, 7, 4, 0.1, True, 1, 0.01), (768, 16, 7, 4, 0.1, True, 1, 0.01), 1, 1, 1),
    "lr": (7.5e-4, 4e-4, 5e-4, 5e-4, 5e-4),
    "schedule": (
        (8_000, 0.0),
        (10_000, 0.0),
        (0.03, 0.9, 0.07, 0.01, 0.01),
        (10_000, 0.0),
        (0.03, 0.9, 0.07, 0.01, 0.01),
    ),
    "updates": (400_000, 600_000, 400_000, 200_000, 400_000),
    "betas, eps": ((0.9, 0.98, 1e-6),) * 5,
    "weight decay": ((0.01, "all"),) * 5,
    "clip": (0, 1, 0, 0, 0),
    "samples a worker x workers": ((1_000_000, 8), (320_000, 48), (3_800_000, 16), (3_400_000, 24), (3_800_000, 16)),
    "precision": ("fp16",) * 5,
}


def numbers(recipe: PretrainRecipe) -> dict[str, Any]:
    """The values of the table, from a resolved recipe."""
    model, optim, train, mask, data = recipe.model, recipe.optim, recipe.train, recipe.mask, recipe.data
    encoder, adapter, predictor = model.student.encoder, model.student.adapters["audio"], model.predictors["audio"]
    block, context = encoder.block, adapter.context
    assert isinstance(adapter, WaveformAdapterConfig)
    assert isinstance(data, AudioDataConfig)
    spec, stride = adapter.conv_layers, 1
    for _, _, one in spec:
        stride *= one
    return {
        "embed_dim": block.embed_dim,
        "num_heads": block.num_heads,
        "depth": encoder.depth,
        "prenet depth": None if context is None else context.depth,
        "mlp ratio": block.mlp_ratio,
        "norm eps": block.norm_eps,
        "norm": block.norm,
        "norms of the encoder": (encoder.norm_in, encoder.norm_out),
        "targets": model.targets.layers,
        "clones": model.num_masks,
        "each": model.targets.each,
        "after": model.targets.after,
        "loss": (model.loss.beta, model.loss.scale, model.loss.reduction),
        "cls": model.cls_weight,
        "stop": (recipe.monitor.min_target_var, recipe.monitor.min_pred_var),
        "ema": (model.teacher.schedule.start, model.teacher.schedule.end),
        "anneal": model.teacher.schedule.anneal,
        "teacher lacks": model.teacher.leave_out,
        "teacher copies": model.teacher.copy,
        "encoder, attention, post-mlp dropout": (block.projection_dropout, block.attention_dropout, block.dropout),
        "activation, input dropout": (block.activation_dropout, adapter.dropout),
        "dropout after the first norm": encoder.dropout if context is None else context.dropout,
        "layer drop": encoder.layer_drop,
        "prenet layer drop": None if context is None else context.layer_drop,
        "positions": (adapter.positions_depth, adapter.positions_width, adapter.positions_groups),
        "extractor": (len(spec), stride, adapter.extractor_norm, adapter.conv_bias),
        "alibi": adapter.alibi and (adapter.alibi.per_head, adapter.alibi.learned, adapter.alibi.per_layer),
        "extra tokens": adapter.extra_tokens,
        "mask": _mask(mask),
        "predictor": _predictor(predictor),
        "lr": optim.lr,
        "schedule": _schedule(optim.schedule),
        "updates": train.max_steps,
        "betas, eps": (*optim.betas, optim.eps),
        "weight decay": (optim.weight_decay, optim.decay),
        "clip": optim.clip,
        "samples a worker x workers": (data.max_tokens, train.accumulate),
        "precision": train.precision,
    }


def _mask(mask: object) -> tuple[Any, ...]:
    if isinstance(mask, SpanMasker):
        return mask.mask_prob, mask.mask_length, mask.equal_counts
    assert isinstance(mask, InverseBlockMasker)
    return mask.mask_prob, mask.mask_prob_adjust, mask.mask_length, mask.inverse


def _predictor(predictor: object) -> Any:
    if isinstance(predictor, MaskedHeadConfig):
        return predictor.num_layers
    assert isinstance(predictor, ConvDecoderConfig)
    sizes = predictor.decoder_dim, predictor.groups, predictor.kernel_size, predictor.num_layers
    return (*sizes, predictor.dropout, predictor.residual, predictor.projection_layers, predictor.noise_std)


def _schedule(schedule: object) -> tuple[float, ...]:
    if isinstance(schedule, TriStageConfig):
        stages = schedule.warmup, schedule.hold, schedule.decay
        return (*stages, schedule.init_scale, schedule.final_scale)
    assert isinstance(schedule, CosineConfig)
    return schedule.warmup, schedule.min_lr


@pytest.mark.parametrize("name", COLUMNS)
def test_published_numbers(name: str) -> None:
    found = numbers(read_recipe(f"audio/{name}", GIVEN, PretrainRecipe))
    column = COLUMNS.index(name)
    assert found == {row: values[column] for row, values in TABLE.items()}


@pytest.mark.parametrize("name", COLUMNS)
def test_published_input(name: str) -> None:
    """16 kHz, normalised; utterances below 2 s are left out, longer ones than 20 s cropped (published)."""
    recipe = read_recipe(f"audio/{name}", GIVEN, PretrainRecipe)
    data = recipe.data
    assert isinstance(data, AudioDataConfig)
    assert (data.sample_rate, data.normalize, data.min_samples, data.max_samples) == (16_000, True, 32_000, 320_000)
    assert (data.batch_multiple, data.num_buckets, data.pad) == (8, 0, False)
    assert recipe.train.batch_size * data.min_samples > (data.max_tokens or 0), "nothing else limits a batch"


@pytest.mark.parametrize("name", COLUMNS)
def test_published_models_build(name: str) -> None:
    """On the meta device: shapes without memory."""
    recipe = read_recipe(f"audio/{name}", GIVEN, PretrainRecipe)
    with torch.device("meta"):
        backbone = recipe.model.student.build()
    blocks = 12 * recipe.model.student.encoder.block.embed_dim**2 * len(backbone.blocks())
    assert blocks < sum(parameter.numel() for parameter in backbone.parameters()) < 1.2 * blocks


def test_the_published_base_model_has_the_published_number_of_parameters() -> None:
    """1.0 base: 93,164,288 without the regression head (its checkpoint)."""
    recipe = read_recipe("audio/v1-base", GIVEN, PretrainRecipe)
    with torch.device("meta"):
        backbone = recipe.model.student.build()
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 93_164_288


def test_the_small_recipe_differs_from_the_published_in_its_front_end_and_sizes() -> None:
    recipe = read_recipe("audio/small", GIVEN, PretrainRecipe)
    adapter = recipe.model.student.adapters["audio"]
    assert isinstance(adapter, LogMelAdapterConfig)
    assert adapter.gradient_scale == 0
    assert recipe.model.targets.each == ("instance",)
    decoder = recipe.model.predictors["audio"]
    assert isinstance(decoder, ConvDecoderConfig)
    assert isinstance(recipe.mask, InverseBlockMasker)
    assert not recipe.mask.inverse
