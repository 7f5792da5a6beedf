"""A recipe for a run of another length than its own: durations in updates follow, nothing else does."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v.core.files import ConfigError
from d2v.core.recipes import PretrainRecipe, read_recipe, resolved_text
from d2v.core.recipes.schedules import CosineConfig, TriStageConfig

GIVEN = {"data.path": "digits", "out": "run"}
STAGES = {"optim.schedule.kind": "tri-stage", "optim.schedule.warmup": 30, "optim.schedule.hold": 900}
STAGES |= {"optim.schedule.decay": 70}


def recipe(name: str, overrides: dict[str, Any]) -> PretrainRecipe:
    return read_recipe(name, GIVEN | overrides, PretrainRecipe)


def durations(found: PretrainRecipe) -> tuple[Any, Any, Any]:
    assert isinstance(found.optim.schedule, CosineConfig)
    return found.optim.schedule.warmup, found.model.teacher.schedule.anneal, found.monitor.warmup


def test_a_shorter_run_has_the_shape_of_the_published_one() -> None:
    assert durations(recipe("vision/base", {})) == (50_040, 100_000, 0.1)
    assert durations(recipe("vision/base", {"train.max_steps": 20_000})) == (2_666, 5_329, 0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(min_value=8, max_value=2_000_000), st.sampled_from(["base", "large", "huge14", "huge16"]))
def test_any_length_builds_and_keeps_proportions(updates: int, name: str) -> None:
    own = recipe(f"vision/{name}", {})
    found = recipe(f"vision/{name}", {"train.max_steps": updates})
    for part, whole in zip(durations(found)[:2], durations(own)[:2], strict=True):
        assert isinstance(part, int)
        assert whole * updates / own.train.max_steps - 1 < part <= whole * updates / own.train.max_steps
    assert found.train.checkpoint_every == own.train.checkpoint_every
    peak = max(found.optim.build_schedule(updates)(n) for n in (durations(found)[0], durations(found)[0] + 1))
    assert peak == own.optim.lr


def test_the_smallest_loss_scale_is_that_of_the_published_runs() -> None:
    scales = {name: recipe(name, {}).train.min_loss_scale for name in ("vision/base", "text/base", "text/large")}
    assert scales == {"vision/base": 1e-6, "text/base": 1e-4, "text/large": 1e-6}
    former = {name: recipe(f"{name}", {}).train.min_loss_scale for name in ("audio/v1-base", "audio/v1-audioset")}
    assert former == {"audio/v1-base": 1e-4, "audio/v1-audioset": 1e-6}


def test_fractions_stay_as_they_are() -> None:
    assert durations(recipe("vision/photos", {"train.max_steps": 77})) == durations(recipe("vision/photos", {}))
    assert recipe("vision/photos", {"train.max_steps": 77}).model.teacher.schedule.total == 77


def test_what_is_given_too_stays(caplog: pytest.LogCaptureFixture) -> None:
    given = {"optim.schedule.warmup": 100, "model.teacher.schedule.anneal": 0.5, "train.max_steps": 20_000}
    assert durations(recipe("vision/base", given)) == (100, 0.5, 0.1)
    assert not caplog.records
    section = {"optim.schedule": {"kind": "cosine", "warmup": 100}, "+train.max_steps": 20_000}
    assert durations(recipe("vision/base", section)) == (100, 5_329, 0.1)


def test_what_has_changed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="d2v"):
        recipe("vision/base", {"train.max_steps": 20_000})
    (record,) = caplog.records
    for key in ("train.max_steps=20000", "optim.schedule.warmup=2666", "model.teacher.schedule.anneal=5329"):
        assert key in record.getMessage()


def test_every_stage_of_a_schedule_follows(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(resolved_text(recipe("vision/base", STAGES | {"train.max_steps": 1_000})))
    found = read_recipe(str(path), GIVEN | {"train.max_steps": 500}, PretrainRecipe).optim.schedule
    assert found == TriStageConfig(warmup=15, hold=450, decay=35)


def test_a_file_that_says_its_own_length_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = resolved_text(recipe("vision/base", {}))
    path.write_text(text.replace("max_steps: 375300", "max_steps: 60000"))
    assert durations(read_recipe(str(path), GIVEN, PretrainRecipe))[:2] == (50_040, 100_000)
    path.write_text(text.replace("max_steps: 375300", "max_steps: 20000"))
    with pytest.raises(ConfigError, match=r"optim\.schedule .*max_steps=20000.*warmup"):
        read_recipe(str(path), GIVEN, PretrainRecipe)


@pytest.mark.parametrize("updates", [0, -5, 1.5, "many", True])
def test_a_length_that_is_none_is_refused_by_its_key(updates: Any) -> None:
    with pytest.raises(ConfigError, match=r"train.*max_steps"):
        recipe("vision/base", {"train.max_steps": updates})
