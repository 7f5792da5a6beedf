"""The published text recipes hold the published numbers, and build."""

from typing import Any

import pytest
import torch

from d2v.core.masks import RandomMasker, SpanMasker
from d2v.core.model import ConvDecoderConfig, MaskedHeadConfig
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.core.recipes.schedules import CosineConfig
from d2v.text import TextAdapterConfig, TextDataConfig

GIVEN = {"data.path": "tokens", "out": "run"}

# As published (2.0: Baevski et al. 2022, arXiv:2212.07525; 1.0: arXiv:2202.03555, and the configurations released with
# them), one column a model.
COLUMNS = ("base", "large", "v1-base")
TABLE: dict[str, tuple[Any, ...]] = {
    "embed_dim": (768, 1024, 768),
    "num_heads": (12, 16, 12),
    "depth": (12, 24, 12),
    "prenet depth": (0, 0, 0),
    "mlp ratio": (4, 4, 4),
    "norm eps": (1e-5, 1e-5, 1e-5),
    "norm": ("post",) * 3,
    "norms of the encoder": ((False, False),) * 3,
    "targets": (12, 24, 10),
    "clones": (8, 8, 1),
    "each": (("instance",), ("layer",), ("layer",)),
    "after": ((), ("instance",), ()),
    "loss": ((0, 1, "sum"), (0, 1, "sum"), (4, 1, "sum")),
    "cls": (0, 0, 0),
    "stop": ((0.1, 0.01), (0.1, 0.01), (0, 0)),
    "ema": ((0.9999, 0.99999), (0.9999, 0.99999), (0.999, 0.9999)),
    "anneal": (100_000, 100_000, 300_000),
    "teacher lacks": (("adapters.*",), ("adapters.*",), ()),
    "teacher copies": ((), (), ("adapters.*.front",)),
    "encoder, attention, post-mlp dropout": ((0.1, 0.1, 0.1),) * 3,
    "activation, input dropout": ((0.0, 0.0),) * 3,
    "embedding dropout": (0.1, 0.1, 0.1),
    "layer drop, drop path": ((0.0, (0.0, 0.0)),) * 3,
    "initial values": (("normal", "normal"),) * 3,
    "embedding": (("learned", False, True),) * 3,
    "vocabulary, padding, mask id": ((50_265, 1, None), (50_265, 1, None), (50_265, 1, 50_264)),
    "positions": (512, 512, 512),
    "alibi, extra tokens": ((None, 0),) * 3,
    "hidden tokens are dropped": (True, True, False),
    "mask": ((0.48, 1, False), (0.5, 1, False), (0.35, 4, True, False, 0)),
    "predictor": (
        (768, 1, 9, 5, 0.1, False, 2, 2, 0.01),
        (768, 1, 9, 5, 0.1, False, 2, 2, 0.01),
        2,
    ),
    "lr": (2e-4, 1e-4, 2e-4),
    "warm-up, last rate": ((4_000, 0.0), (4_000, 0.0), (10_000, 0.0)),
    "updates": (1_000_000, 600_000, 1_000_000),
    "betas, eps": ((0.9, 0.98, 1e-6),) * 3,
    "weight decay": ((0.01, "all"),) * 3,
    "clip": (1, 1, 5),
    "blocks": ((512, "none"), (512, "none"), (512, "complete_doc")),
    "tokens a worker": (4 * 512, 2 * 512, 8_192),
    "workers": (16, 32, 16),
    "precision": ("fp16",) * 3,
}


def numbers(recipe: PretrainRecipe) -> dict[str, Any]:
    """The values of the table, from a resolved recipe."""
    model, optim, train, data = recipe.model, recipe.optim, recipe.train, recipe.data
    encoder, adapter = model.student.encoder, model.student.adapters["text"]
    block, schedule = encoder.block, optim.schedule
    assert isinstance(adapter, TextAdapterConfig)
    assert isinstance(data, TextDataConfig)
    assert isinstance(schedule, CosineConfig)
    return {
        "embed_dim": block.embed_dim,
        "num_heads": block.num_heads,
        "depth": encoder.depth,
        "prenet depth": 0 if adapter.context is None else adapter.context.depth,
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
        "stop": (recipe.monitor.min_target_var or 0, recipe.monitor.min_pred_var or 0),
        "ema": (model.teacher.schedule.start, model.teacher.schedule.end),
        "anneal": model.teacher.schedule.anneal,
        "teacher lacks": model.teacher.leave_out,
        "teacher copies": model.teacher.copy,
        "encoder, attention, post-mlp dropout": (block.projection_dropout, block.attention_dropout, block.dropout),
        "activation, input dropout": (block.activation_dropout, encoder.dropout),
        "embedding dropout": adapter.embedding_dropout,
        "layer drop, drop path": (encoder.layer_drop, encoder.drop_path_rate),
        "initial values": (encoder.init, model.predictors["text"].init),
        "embedding": (adapter.positions, adapter.scale_embedding, adapter.norm),
        "vocabulary, padding, mask id": (adapter.vocabulary_size, adapter.padding_id, adapter.mask_id),
        "positions": adapter.max_length,
        "alibi, extra tokens": (adapter.alibi, adapter.extra_tokens),
        "hidden tokens are dropped": model.student.visible_only,
        "mask": _mask(recipe.mask),
        "predictor": _predictor(model.predictors["text"]),
        "lr": optim.lr,
        "warm-up, last rate": (schedule.warmup, schedule.min_lr),
        "updates": train.max_steps,
        "betas, eps": (*optim.betas, optim.eps),
        "weight decay": (optim.weight_decay, optim.decay),
        "clip": optim.clip,
        "blocks": (data.block_size, data.break_mode),
        "tokens a worker": data.max_tokens or train.batch_size * data.block_size,
        "workers": train.accumulate,
        "precision": train.precision,
    }


def _mask(mask: object) -> tuple[Any, ...]:
    if isinstance(mask, RandomMasker):
        return mask.mask_prob, 1, mask.pad_aware
    assert isinstance(mask, SpanMasker)
    return mask.mask_prob, mask.mask_length, mask.reach_end, mask.equal_counts, mask.min_masks


def _predictor(predictor: object) -> Any:
    if isinstance(predictor, MaskedHeadConfig):
        return predictor.num_layers
    assert isinstance(predictor, ConvDecoderConfig)
    sizes = predictor.decoder_dim, predictor.groups, predictor.kernel_size, predictor.num_layers
    projection = predictor.projection_layers, predictor.projection_ratio
    return (*sizes, predictor.dropout, predictor.residual, *projection, predictor.noise_std)


@pytest.mark.parametrize("name", COLUMNS)
def test_published_numbers(name: str) -> None:
    found = numbers(read_recipe(f"text/{name}", GIVEN, PretrainRecipe))
    column = COLUMNS.index(name)
    assert found == {row: values[column] for row, values in TABLE.items()}


@pytest.mark.parametrize("name", COLUMNS)
def test_published_batches(name: str) -> None:
    recipe = read_recipe(f"text/{name}", GIVEN, PretrainRecipe)
    data = recipe.data
    assert isinstance(data, TextDataConfig)
    assert data.batch_multiple == (8 if name == "v1-base" else 1)
    assert not data.cut_long
    if data.max_tokens is not None:
        assert recipe.train.batch_size >= data.max_tokens, "nothing else limits a batch"


@pytest.mark.parametrize(
    # 1.0: as published. 2.0: embeddings and blocks; the published checkpoint has the same tensors.
    ("name", "count"),
    [("v1-base", 124_054_272), ("base", 124_054_272)],
)
def test_published_models_have_the_published_number_of_parameters(name: str, count: int) -> None:
    recipe = read_recipe(f"text/{name}", GIVEN, PretrainRecipe)
    with torch.device("meta"):
        backbone = recipe.model.student.build()
    assert sum(parameter.numel() for parameter in backbone.parameters()) == count
    if name == "v1-base":
        with torch.device("meta"):
            head = recipe.model_config().build().predictors["text"]
        assert count + sum(parameter.numel() for parameter in head.parameters()) == 126_415_872


def test_the_large_model_builds() -> None:
    recipe = read_recipe("text/large", GIVEN, PretrainRecipe)
    with torch.device("meta"):
        backbone = recipe.model.student.build()
    assert len(backbone.blocks()) == 24
