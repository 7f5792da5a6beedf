"""The published image recipes hold the published numbers, and build."""

from typing import Any

import pytest
import torch

from d2v.core.masks import InverseBlockMasker
from d2v.core.model import ConvDecoderConfig
from d2v.core.recipes import PretrainRecipe, read_recipe, recipe_names
from d2v.core.recipes.schedules import CosineConfig
from d2v.core.train import CosineSchedule
from d2v.vision import ImageAdapterConfig, ImageDataConfig

GIVEN = {"data.path": "digits", "out": "run"}

# As published (Baevski et al. 2022, arXiv:2212.07525, and the configurations released with it), one column a model.
COLUMNS = ("base", "large", "huge14", "huge16")
TABLE: dict[str, tuple[Any, ...]] = {
    "embed_dim": (768, 1024, 1280, 1280),
    "num_heads": (12, 16, 16, 16),
    "depth": (10, 24, 32, 32),
    "prenet depth": (2, 0, 0, 0),
    "mlp ratio": (4, 4, 4, 4),
    "norm eps": (1e-6,) * 4,
    "norm": ("post",) * 4,
    "targets": (10, 18, 24, 24),
    "clones": (16,) * 4,
    "each": (("instance",),) * 4,
    "after": (("layer",),) * 4,
    "loss": ((0, None, "sum"),) * 4,
    "cls": (0.01,) * 4,
    "stop": ((0, 0),) * 4,
    "ema": ((0.9998, 0.99999), (0.9998, 0.99999), (0.9998, 1.0), (0.9998, 0.99995)),
    "anneal": (100_000, 150_000, 300_000, 150_000),
    "teacher lacks": ((),) * 4,
    "dropouts": ((0.0,) * 9,) * 4,
    "input": ((224, 16), (224, 16), (224, 14), (224, 16)),
    "extra tokens": ((1, 1.0, False),) * 4,
    "mask": ((0.8, 0.07, 3), (0.75, 0.1, 3), (0.75, 0.1, 3), (0.75, 0.1, 3)),
    "mask noise": (0.01,) * 4,
    "inverse": (True,) * 4,
    "decoder": ((768, 16, 3, 6), (1024, 16, 5, 3), (1024, 16, 5, 3), (1024, 16, 5, 3)),
    "decoder rest": ((0.0, True, 1),) * 4,
    "lr": (1e-3, 4e-4, 4e-4, 4e-4),
    "warm-up": (50_040,) * 4,
    "updates": (375_300, 375_300, 500_000, 375_300),
    "first and last rate": ((0.0, 0.0),) * 4,
    "betas, eps": ((0.9, 0.95, 1e-8),) * 4,
    "weight decay": ((0.05, "all"),) * 4,
    "clip": (4,) * 4,
    "per worker x workers": ((16, 16), (8, 16), (8, 32), (8, 16)),
    "precision": ("fp16",) * 4,
}


def numbers(recipe: PretrainRecipe) -> dict[str, Any]:
    """The values of the table, from a resolved recipe."""
    model, optim, train, mask = recipe.model, recipe.optim, recipe.train, recipe.mask
    block, adapter, decoder = model.student.encoder.block, model.student.adapters["vision"], model.predictors["vision"]
    assert isinstance(adapter, ImageAdapterConfig)
    assert isinstance(decoder, ConvDecoderConfig)
    assert isinstance(mask, InverseBlockMasker)
    assert isinstance(optim.schedule, CosineConfig)
    assert adapter.context is not None
    schedule = optim.build_schedule(train.max_steps)
    assert isinstance(schedule, CosineSchedule)
    encoder, context = model.student.encoder, adapter.context
    return {
        "embed_dim": block.embed_dim,
        "num_heads": block.num_heads,
        "depth": encoder.depth,
        "prenet depth": context.depth,
        "mlp ratio": block.mlp_ratio,
        "norm eps": block.norm_eps,
        "norm": block.norm,
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
        "dropouts": (
            block.attention_dropout,
            block.projection_dropout,
            block.activation_dropout,
            block.branch_dropout,
            block.dropout,
            encoder.layer_drop,
            context.layer_drop,
            context.dropout,
            max(*encoder.drop_path_rate, *context.drop_path_rate),
        ),
        "input": (adapter.image_size[0], adapter.patch_size[0]),
        "extra tokens": (adapter.extra_tokens, adapter.extra_tokens_std, adapter.first_token_zero),
        "mask": (mask.mask_prob, mask.mask_prob_adjust, mask.mask_length),
        "mask noise": decoder.noise_std,
        "inverse": mask.inverse,
        "decoder": (decoder.decoder_dim, decoder.groups, decoder.kernel_size, decoder.num_layers),
        "decoder rest": (decoder.dropout, decoder.residual, decoder.projection_layers),
        "lr": optim.lr,
        "warm-up": optim.schedule.warmup,
        "updates": train.max_steps,
        "first and last rate": (schedule(0), schedule.min_lr),
        "betas, eps": (*optim.betas, optim.eps),
        "weight decay": (optim.weight_decay, optim.decay),
        "clip": optim.clip,
        "per worker x workers": (train.batch_size, train.accumulate),
        "precision": train.precision,
    }


@pytest.mark.parametrize("name", COLUMNS)
def test_published_numbers(name: str) -> None:
    found = numbers(read_recipe(f"vision/{name}", GIVEN, PretrainRecipe))
    column = COLUMNS.index(name)
    assert found == {row: values[column] for row, values in TABLE.items()}


@pytest.mark.parametrize("name", COLUMNS)
def test_published_input(name: str) -> None:
    data = read_recipe(f"vision/{name}", GIVEN, PretrainRecipe).data
    assert data == ImageDataConfig(path="digits", size=224, channels=3, crop_area=(0.2, 1.0), flip=0.5)


@pytest.mark.parametrize("name", COLUMNS)
def test_published_models_build(name: str) -> None:
    """On the meta device: shapes without memory."""
    recipe = read_recipe(f"vision/{name}", GIVEN, PretrainRecipe)
    with torch.device("meta"):
        backbone = recipe.model.student.build()
    blocks = 12 * recipe.model.student.encoder.block.embed_dim**2 * len(backbone.blocks())
    assert blocks < sum(parameter.numel() for parameter in backbone.parameters()) < 1.1 * blocks


def test_the_recipe_for_photographs_is_the_published_base_model_made_smaller() -> None:
    own, published = (numbers(read_recipe(f"vision/{name}", GIVEN, PretrainRecipe)) for name in ("photos", "base"))
    differing = {row for row in own if own[row] != published[row]}
    smaller = {"embed_dim", "num_heads", "decoder"}
    shorter = {"ema", "anneal", "lr", "warm-up", "updates", "per worker x workers"}
    assert differing == smaller | shorter | {"weight decay", "precision"}
    assert all(isinstance(own[row], float) for row in ("anneal", "warm-up")), "fractions of the run"


def test_every_recipe_is_complete_but_for_what_a_user_gives() -> None:
    for name in recipe_names():
        if name.startswith("vision/") and "finetune" not in name:
            assert read_recipe(name, GIVEN, PretrainRecipe).modalities == ("vision",)
