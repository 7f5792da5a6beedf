"""The published recipes of speech hold the published numbers, and build."""

from importlib.resources import files
from typing import Any

import pytest
import torch
from speech import DIM, LETTERS, encoder, student

from d2v.audio import CTC, AudioDataConfig, AudioTagging
from d2v.core.files import ConfigError
from d2v.core.labels import MultiLabel
from d2v.core.masks import SpanMasker
from d2v.core.recipes import FinetuneRecipe, read_recipe, recipe_names, recipe_text
from d2v.core.recipes.schedules import CosineConfig, TriStageConfig

GIVEN = {"data.path": "recordings", "model": "run", "out": "out"}
SHARES = (0.1, 0.4, 0.5)
ROWS = (
    "workers",
    "million samples",
    "batches",
    "updates",
    "lr",
    "schedule",
    "frozen",
    "mask",
    "channels",
    "layer drop",
    "language model",
    "zeros",
    "alibi",
    "multiple",
)
# As published, one row a configuration: phase ratios or updates of a tri-stage schedule, or the warm-up of a cosine;
# probability and length of the masks of frames, probability of those of channels.
TABLE: dict[str, tuple[Any, ...]] = {
    "base-10m": (2, 3.2, 4, 13_000, 5e-5, SHARES, 10_000, (0.65, 10), 0.25, 0.1, None, False, True, 8),
    "base-1h": (2, 3.2, 4, 13_000, 5e-5, SHARES, 10_000, (0.65, 10), 0.25, 0.1, None, False, True, 8),
    "base-10h": (2, 3.2, 4, 20_000, 5e-5, SHARES, 10_000, (0.65, 10), 0.5, 0.05, None, False, True, 8),
    "base-100h": (2, 3.2, 4, 80_000, 3e-5, SHARES, 0, (0.65, 10), 0.5, 0.1, None, False, True, 8),
    "base-960h": (8, 3.2, 1, 320_000, 1e-4, SHARES, 0, (0.5, 10), 0.1, 0.1, None, False, True, 8),
    "vox-10m": (4, 1.28, 5, 13_000, 1e-4, SHARES, 10_000, (0.65, 10), 0.25, 0.1, None, False, True, 8),
    "vox-1h": (4, 1.28, 5, 13_000, 3e-4, SHARES, 10_000, (0.75, 10), 0.25, 0.1, None, False, True, 8),
    "vox-10h": (4, 1.28, 5, 20_000, 1e-4, SHARES, 10_000, (0.75, 10), 0.25, 0.1, None, False, True, 8),
    "vox-100h": (4, 1.28, 5, 80_000, 3e-5, SHARES, 10_000, (0.5, 10), 0.5, 0.1, None, False, True, 8),
    "vox-960h": (24, 1.28, 1, 320_000, 3e-5, SHARES, 10_000, (0.5, 10), 0.25, 0.1, None, False, True, 8),
    "vox-10m-2": (4, 1, 4, 10_000, 2e-6, 1000, 100, (0.4, 3), 0.25, 0.1, (5, 2, -2), True, False, 1),
    "vox-10m-2-aws": (4, 1, 4, 10_000, 2e-6, 1000, 100, (0.4, 3), 0.25, 0.1, (5, 2, -2), True, False, 1),
    "vox-1h-2-aws": (4, 1, 4, 10_000, 2e-6, 1000, 100, (0.4, 3), 0.25, 0.1, (5, 0, -4), True, False, 1),
    "vox-10m-3": (4, 1.28, 5, 13_000, 2e-5, SHARES, 10_000, (0.65, 10), 0.25, 0.1, (8, 5.8, -8), False, True, 8),
    "vox-1h-2": (8, 1, 1, 60_000, 1e-5, 4000, 100, (0.65, 5), 0.25, 0.1, (6, -0.1, -4.7), False, True, 1),
    "vox-1h-3": (8, 0.64, 5, 13_000, 6e-5, 4000, 10_000, (0.3, 3), 0.25, 0.1, (6, -0.1, -4.7), False, True, 8),
    "vox-1h-4": (8, 0.64, 5, 13_000, 6e-5, SHARES, 10_000, (0.65, 10), 0.25, 0.1, (2, -1, 0), False, True, 8),
    "vox-1h-aws": (8, 1, 5, 13_000, 6e-5, 4000, 10_000, (0.3, 3), 0.25, 0.1, (5, -0.1, -4.7), False, False, 1),
    "vox-10h-2": (4, 1.28, 1, 60_000, 2e-5, 8000, 100, (0.5, 5), 0.1, 0.1, (2, -1, 0), False, True, 1),
    "vox-10h-2-aws": (4, 1.28, 1, 60_000, 1e-5, (8000, 0, 72_000), 100, (0.75, 5), 0.1, 0, (2, 4, -5), False, True, 1),
    "vox-10h-aws": (4, 1.28, 1, 60_000, 2e-5, (8000, 0, 72_000), 100, (0.4, 5), 0.1, 0.1, None, False, True, 1),
    "vox-10h-aws-v100": (4, 1.28, 1, 60_000, 2e-5, (8000, 0, 72_000), 100, (0.6, 10), 0.1, 0.1, None, False, True, 1),
    "vox-100h-2": (8, 1.28, 1, 100_000, 1e-5, (8000, 0, 72_000), 100, (0.4, 5), 0.1, 0.1, (2, 0, -2), False, True, 1),
    "vox-100h-2-aws": (8, 1.28, 1, 100_000, 1e-5, (8000, 0, 82_000), 100, (0.4, 7), 0.1, 0, (2, 0, -2), False, True, 1),
    "vox-100h-3": (8, 1, 1, 100_000, 1e-5, 8000, 100, (0.4, 5), 0.1, 0.1, (2, -1, 0), False, True, 1),
    "vox-960h-2": (16, 1, 1, 200_000, 1e-5, (8000, 0, 200_000), 100, (0.4, 5), 0.1, 0.1, (2, -1, 0), False, True, 1),
    "vox-960h-2-aws": (
        16, 1.28, 1, 200_000, 2e-5, (8000, 0, 192_000), 100, (0.3, 5), 0.1, 0, (1.5, 0, -1), False, True, 1,
    ),
    "vox-960h-3": (16, 1, 1, 200_000, 1e-5, 8000, 100, (0.4, 5), 0.1, 0.1, (2, -1, 0), False, True, 1),
}  # fmt: skip
COMMON = {
    "betas, eps": (0.9, 0.98, 1e-8),
    "weight decay, clip": (0.0, 0.0),
    "activation dropout": 0.1,
    "other dropouts": {0.0},
    "channel length": (64, 0),
    "gradient scale": 0.0,
    "average": "utterances",
    "first and last rate": (0.01, 0.05),
}


def recipe(name: str, **overrides: Any) -> FinetuneRecipe:
    return read_recipe(f"audio/{name}", GIVEN | overrides, FinetuneRecipe)


def shape_of(schedule: Any) -> Any:
    if isinstance(schedule, CosineConfig):
        assert (schedule.min_lr, schedule.warmup_start) == (0.0, None)
        return schedule.warmup
    assert isinstance(schedule, TriStageConfig)
    return schedule.warmup, schedule.hold, schedule.decay


@pytest.mark.parametrize("name", TABLE)
def test_published_numbers(name: str) -> None:
    own, wanted = recipe(f"ctc-{name}"), dict(zip(ROWS, TABLE[name], strict=True))
    task, data, optim = own.task, own.data, own.optim
    assert isinstance(task, CTC)
    assert isinstance(data, AudioDataConfig)
    assert isinstance(task.mask, SpanMasker)
    assert isinstance(task.channel_mask, SpanMasker)
    assert {
        "workers": own.train.accumulate,
        "million samples": (data.max_tokens or 0) / 1e6,
        "updates": own.train.max_steps,
        "lr": optim.lr,
        "schedule": shape_of(optim.schedule),
        "frozen": own.freeze.updates,
        "mask": (task.mask.mask_prob, task.mask.mask_length),
        "channels": task.channel_mask.mask_prob,
        "layer drop": task.layer_drop,
        "zeros": task.mask_noise_std == 0,
        "alibi": task.learned_alibi,
        "multiple": data.batch_multiple,
    } == {row: value for row, value in wanted.items() if row not in ("batches", "language model")} | {
        "workers": wanted["workers"] * wanted["batches"]
    }


@pytest.mark.parametrize("name", TABLE)
def test_numbers_that_all_have_in_common(name: str) -> None:
    own = recipe(f"ctc-{name}")
    task, optim = own.task, own.optim
    assert isinstance(task, CTC)
    assert isinstance(task.channel_mask, SpanMasker)
    composite = name in ("vox-10m-2", "vox-10m-2-aws", "vox-1h-2-aws")
    stages = optim.schedule if isinstance(optim.schedule, TriStageConfig) else None
    assert {
        "betas, eps": (*optim.betas, optim.eps),
        "weight decay, clip": (optim.weight_decay, optim.clip),
        "activation dropout": task.activation_dropout,
        "other dropouts": {task.dropout, task.attention_dropout, task.input_dropout, task.final_dropout},
        "channel length": (task.channel_mask.mask_length, task.channel_mask.min_masks),
        "gradient scale": task.gradient_scale,
        "average": task.average,
        "first and last rate": (stages.init_scale, stages.final_scale) if stages else (0.01, 0.05),
    } == COMMON | ({"betas, eps": (0.9, 0.95, 1e-8)} if composite else {})
    assert own.train.batch_size >= 1000, "the samples of a batch are its only limit"
    late = own.freeze.updates if name.split("-")[1] in ("10m", "1h", "10h") else 0
    assert own.validation.start == late


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_says_what_it_cannot_set(name: str) -> None:
    """Workers, batches of each, and the language model of validation."""
    wanted = dict(zip(ROWS, TABLE[name], strict=True))
    text, count = recipe_text(f"audio/ctc-{name}"), wanted["batches"]
    batches = "1 batch" if count == 1 else f"{count} batches"
    assert f"(published: {wanted['workers']} workers x {batches} of {wanted['million samples']:g}M samples)" in text
    if wanted["language model"] is None:
        assert "language model" not in text
    else:
        weight, word, silence = wanted["language model"]
        assert f"weight {weight:g}, word score {word:g}, silence score {silence:g}." in text


def test_the_table_has_every_recipe() -> None:
    assert {f"audio/ctc-{name}" for name in TABLE} == {one for one in recipe_names() if one.startswith("audio/ctc-")}
    assert len(TABLE) == 28


def test_tagging_of_audioset() -> None:
    own = recipe("tagging")
    task, data = own.task, own.data
    assert isinstance(task, AudioTagging)
    assert isinstance(data, AudioDataConfig)
    assert isinstance(task.mask, SpanMasker)
    assert (own.train.accumulate, data.max_tokens, own.train.max_steps) == (8, 2_560_000, 30_000)
    assert (own.optim.lr, shape_of(own.optim.schedule)) == (6e-5, 5000)
    assert (*own.optim.betas, own.optim.eps, own.optim.weight_decay, own.optim.clip) == (0.9, 0.98, 1e-8, 0.0, 0.0)
    assert (task.mask.mask_prob, task.mask.mask_length, task.channel_mask) == (0.6, 5, None)
    assert (task.layer_drop, task.dropout, task.activation_dropout, task.attention_dropout) == (0.1, 0.1, 0.1, 0.2)
    assert (task.gradient_scale, task.mixup, task.label_mixup, task.same_mixup) == (0.0, 0.5, True, True)
    assert (task.pooling, task.eval_pooling, task.mixup_prob, task.gain_mode) == ("linear-softmax", None, 1.0, "none")


@pytest.mark.parametrize("name", sorted(name.split("/")[1] for name in recipe_names() if name.startswith("audio/ctc")))
def test_every_recipe_builds(name: str) -> None:
    own = recipe(name)
    model = own.task.build(encoder(own.task.adapt(student())), embed_dim=DIM, labels=LETTERS)  # type: ignore[arg-type]
    assert isinstance(model, torch.nn.Module)
    schedule = own.optim.build_schedule(own.train.max_steps)
    assert max(schedule(n) for n in range(0, own.train.max_steps, 500)) == pytest.approx(own.optim.lr)


@pytest.mark.parametrize("name", ["tagging", "classification"])
def test_other_recipes_build(name: str) -> None:
    own = recipe(name)
    names = MultiLabel(("a", "b"))
    model = own.task.build(encoder(own.task.adapt(student())), embed_dim=DIM, labels=names)  # type: ignore[arg-type]
    assert isinstance(model, torch.nn.Module)


def test_freezing_and_the_start_of_validation_follow_the_length() -> None:
    own = recipe("ctc-base-10m", **{"train.max_steps": 1300})
    assert (own.freeze.updates, own.validation.start) == (1000, 1000)
    share = recipe("ctc-base-10m", **{"freeze.updates": 0.25, "validation.start": 0.5})
    assert (share.freeze.updates, share.validation.start) == (0.25, 0.5)


def test_variants_are_only_differences() -> None:
    """Thirty copies of one recipe would be thirty places for a mistake."""
    for path in files("d2v.audio.recipes").iterdir():
        if path.name.startswith("ctc-"):
            assert len(path.read_text().splitlines()) <= 16
            assert "extends: audio/ctc" in path.read_text()


@pytest.mark.parametrize("key", ["freeze.updates", "validation.start"])
def test_a_fraction_above_one_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        recipe("ctc-base-10m", **{key: 1.5})
