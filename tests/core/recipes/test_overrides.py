"""`key=value` on top of a recipe: what is taken, and what is refused."""

import logging
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from d2v.core.files import ConfigError
from d2v.core.masks import RandomMasker
from d2v.core.recipes import PretrainRecipe, parse_overrides, read_recipe, recipe_values
from d2v.core.recipes.yaml_text import read_yaml, yaml_scalar
from d2v.core.registry import UnknownNameError

GIVEN = {"data.path": "digits", "out": "run"}


def small(**overrides: Any) -> PretrainRecipe:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return read_recipe("vision/small", GIVEN | dotted, PretrainRecipe)


def refusal(overrides: dict[str, Any], recipe: str = "vision/small") -> str:
    with pytest.raises(ConfigError) as caught:
        read_recipe(recipe, GIVEN | overrides, PretrainRecipe)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100_000.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("16", 16),
        ("-2", -2),
        ("012", "012"),
        ("12:30", "12:30"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("", None),
        ("[0.9, .95]", [0.9, 0.95]),
        ("{a: 1}", {"a": 1}),
        ("a=b", "a=b"),
        ("'1'", "1"),
    ],
)
def test_values_are_read_as_people_mean_them(text: str, value: object) -> None:
    (found,) = parse_overrides([f"key={text}"]).values()
    assert found == value
    assert type(found) is type(value)


@example("\x85\U00010000")
@example("1e-3")
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()))
def test_what_is_printed_is_read_back(value: object) -> None:
    found = read_yaml(yaml_scalar(value), name="it")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system [echo]", "!!python/name:os.system", "[1", "{a"])
def test_nothing_in_a_value_makes_an_object(text: str) -> None:
    with pytest.raises(ConfigError, match=r"key.*YAML"):
        parse_overrides([f"key={text}"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["seed"], "'seed' .*seed=VALUE"),
        (["--seed"], "'--seed' .*seed=VALUE"),
        (["=3"], "'=3'"),
        (["seed=1", "seed=2"], "seed .*twice"),
    ],
)
def test_arguments_of_another_form_are_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_overrides(arguments)


def test_overrides_reach_every_depth() -> None:
    recipe = small(
        seed=3,
        optim__lr=0.5,
        mask__mask_length=1,
        model__student__adapters__vision__context__depth=1,
        monitor__stop=False,
    )
    assert (recipe.seed, recipe.optim.lr, recipe.monitor.stop) == (3, 0.5, False)
    assert recipe.model.student.adapters["vision"].context.depth == 1  # type: ignore[attr-defined]
    assert recipe.optim.betas == (0.9, 0.95), "the rest stays"


def test_a_new_kind_starts_its_section_afresh() -> None:
    recipe = small(mask__kind="random", mask__mask_prob=0.4)
    assert recipe.mask == RandomMasker(mask_prob=0.4)
    assert small(**{"mask__mask_prob": 0.4, "mask__kind": "random"}).mask == RandomMasker(mask_prob=0.4)


def test_the_same_kind_changes_nothing() -> None:
    assert small(mask__kind="inverse-blocks").mask == small().mask


def test_a_section_that_is_off_is_switched_on_by_its_keys() -> None:
    recipe = small(model__student__adapters__vision__alibi__scale=2.0)
    assert recipe.model.student.adapters["vision"].alibi.scale == 2.0  # type: ignore[attr-defined]


def test_fractions_of_the_run_follow_its_length() -> None:
    assert small(train__max_steps=30).model.teacher.schedule.total == 30


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("optim.lrr", "'optim.lrr'.*'optim.lr'"),
        ("lr", "'lr'.*'optim.lr'"),
        ("max_steps", "'max_steps'.*'train.max_steps'"),
        ("mask.mask_lenght", "'mask.mask_lenght'.*'mask.mask_length'"),
        ("optim.lr.x", "optim.lr .*section"),
        ("optimization.max_update", "'optimization.max_update'.* train.max_steps "),
        ("optimization.update_freq", "'optimization.update_freq'.* train.accumulate "),
        ("task.data", "'task.data'.* data.path "),
        ("common.fp16", "'common.fp16'.* train.precision=fp16 "),
        ("model.clone_batch", "'model.clone_batch'.* model.num_masks "),
        ("model.modalities.image.mask_prob", "'model.modalities.image.mask_prob'.* mask.mask_prob "),
        ("dataset.num_workers", "'dataset.num_workers'.*original"),
        ("xyzzy", "'xyzzy'$"),
    ],
)
def test_unknown_keys_name_the_nearest(key: str, told: str) -> None:
    assert re.search(told, refusal({key: 1}))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("train.batch_size", "many", "train.batch_size: .*whole number.*'many'"),
        ("train.batch_size", 2.5, "train.batch_size: .*whole number.*2.5"),
        ("train.batch_size", 0, r"batch_size.*\b0\b"),
        ("train.precision", "half", "train.precision"),
        ("optim.lr", "fast", "optim.lr: .*number.*'fast'"),
        ("optim.decay", "some", "optim.decay"),
        ("resume", "yes", "resume: .*true or false.*'yes'"),
        ("mask.kind", "blobs", "'blobs'"),
        ("mask.mask_prob", 1.5, r"mask_prob.*1\.5"),
        ("optim.schedule.warmup", 90_000, "optim.schedule .*train.max_steps=8000"),
        ("model.encoder", 3, "model.encoder"),
        ("out", None, "out: "),
    ],
)
def test_wrong_values_name_the_key(key: str, value: object, told: str) -> None:
    assert re.search(told, refusal({key: value}))


def test_all_mistakes_are_told_at_once() -> None:
    told = refusal({"optim.lrr": 1, "sed": 2})
    assert "'optim.lrr'" in told
    assert "'sed'" in told


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'out'.*'data\.path'|'data\.path'.*'out'"):
        read_recipe("vision/small", {}, PretrainRecipe)


def test_a_plus_is_accepted_with_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        recipe = read_recipe("vision/small", GIVEN | {"+optim.lr": 0.25}, PretrainRecipe)
    assert recipe.optim.lr == 0.25
    assert ["+optim.lr" in told for told in caplog.messages] == [True]


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'vision/bass'.*'vision/base'"):
        recipe_values("vision/bass")


def test_overrides_leave_the_recipe_alone() -> None:
    small(optim__lr=9.0)
    assert small().optim.lr == 2e-3
