"""Sections of recipes make the pieces of training that their keys say."""

from typing import Any

import pytest
from torch import nn

from d2v.core.files import ConfigError
from d2v.core.recipes import PretrainRecipe, read_recipe, resolved_text
from d2v.core.train import BEiTCosineSchedule, BEiTTriPhaseSchedule, set_weight_decay

GIVEN = {"data.path": "digits", "out": "run", "train.max_steps": 100}
DECAY = {"optim.weight_decay_schedule.kind": "beit-cosine", "optim.weight_decay_schedule.final": 0.2}


def recipe(overrides: dict[str, Any]) -> PretrainRecipe:
    return read_recipe("vision/small", GIVEN | overrides, PretrainRecipe)


def test_beit_schedules_have_kinds() -> None:
    cosine = {"optim.lr": 2e-3, "optim.schedule.kind": "beit-cosine", "optim.schedule.final": 1e-5}
    found = recipe(cosine | {"optim.schedule.warmup": 0.1}).optim.build_schedule(100)
    assert found == BEiTCosineSchedule(2e-3, final=1e-5, total=100, warmup=0.1)
    phases = {"kind": "beit-tri-phase", "final": 1e-5, "warmup": 10, "decay": 0.5}
    found = recipe({"optim.lr": 2e-3} | {f"optim.schedule.{key}": value for key, value in phases.items()})
    expected = BEiTTriPhaseSchedule(2e-3, final=1e-5, total=100, warmup=10, decay=0.5)
    assert found.optim.build_schedule(100) == expected


def test_a_weight_decay_is_constant_unless_it_has_a_schedule() -> None:
    assert recipe({}).optim.build_weight_decay(100) is None
    schedule = recipe(DECAY).optim.build_weight_decay(100)
    assert schedule == BEiTCosineSchedule(0.05, final=0.2, total=100)


def test_the_schedule_sets_what_the_recipe_lets_decay() -> None:
    optim = recipe(DECAY | {"optim.weight_decay": 0.0}).optim
    optimizer = optim.build(nn.Linear(2, 2))
    schedule = optim.build_weight_decay(100)
    set_weight_decay(optimizer, schedule, 50)
    weights = {tuple(group["params"][0].shape): group["weight_decay"] for group in optimizer.param_groups}
    assert weights == {(2, 2): pytest.approx(0.1), (2,): 0.0}


def test_a_scheduled_weight_decay_is_written_and_read_back(tmp_path: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(resolved_text(recipe(DECAY)))
    assert read_recipe(str(path), {"out": "run"}, PretrainRecipe) == recipe(DECAY)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim.weight_decay_schedule.kind": "beit-cosine"}, "optim.weight_decay_schedule.final"),
        (DECAY | {"optim.weight_decay_schedule.warmup": 100}, "weight_decay_schedule .*train.max_steps=100.*warmup"),
        (DECAY | {"optim.weight_decay_schedule.final": -1.0}, "optim.weight_decay_schedule .* final=-1"),
        (
            {"optim.weight_decay_schedule.kind": "cosine", "optim.weight_decay_schedule.min_lr": 0.2},
            "optim.weight_decay_schedule .* min_lr=0.2 .* beit-cosine",
        ),
        ({"optim.schedule.min_lr": 1.0}, "optim.schedule .* min_lr=1.0"),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(overrides)
