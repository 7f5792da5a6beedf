"""`key=value` on top of a recipe: what is taken, and what is refused."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from d2v.core.files import ConfigError
from d2v.core.jobs.extraction import ExtractSettings
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.masks import RandomMasker
from d2v.core.paths import PathText
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe, parse_overrides, read_recipe, recipe_values
from d2v.core.recipes.hints import _SYNONYMS, unknown_key
from d2v.core.recipes.schema import keys
from d2v.core.recipes.typed import read_typed
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
    ("text", "value", "declared"),
    [
        ("1e-3", 0.001, float),
        ("1E5", 100_000.0, float),
        (".5", 0.5, float),
        ("3.", 3.0, float | None),
        ("16", 16, int),
        ("-2", -2, int | None),
        ("012", "012", int),
        ("off", "off", bool),
        ("true", True, bool),
        ("null", None, int | None),
        ("", None, float),
        ("[0.9, .95]", [0.9, 0.95], tuple[float, float]),
        ("[1, 2]", [1, 2], tuple[int, ...] | Literal["final"]),
        ("final", "final", tuple[int, ...] | Literal["final"]),
        ("{a: 1}", {"a": 1}, Mapping[str, float]),
        ("'1'", "1", int),
    ],
)
def test_what_is_no_text_is_yaml(text: str, value: object, declared: object) -> None:
    found = read_typed(text, declared, key="key")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("kind", [str, str | None, PathText, PathText | None, Literal["student", "teacher"]])
@example("2023")
@example("1e3")
@example("try #2")
@example("yes")
@example("1_000")
@example("2024-01-01")
@example("a: b")
@example("[x]")
@example("x=y")
@example("*")
@given(st.text(min_size=1).filter(lambda text: text != "null" and text[0] not in "'\"`“„\u2018«"))
def test_a_text_is_taken_as_typed(kind: object, text: str) -> None:
    (value,) = parse_overrides([f"key={text}"]).values()
    found = read_typed(value, kind, key="key")
    assert (found, type(found)) == (text, str)


@pytest.mark.parametrize(("text", "value"), [("2023", ["2023"]), ("[2023, 1e3]", ["2023", "1e3"]), ("[]", [])])
def test_so_is_each_text_of_a_list(text: str, value: object) -> None:
    assert read_typed(text, tuple[str, ...], key="key") == value
    assert read_typed(text, tuple[Literal["a", "b"], ...] | None, key="key") == value


def test_only_an_optional_text_can_be_none() -> None:
    assert [read_typed(text, str, key="key") for text in ("null", "")] == ["null", ""]
    assert [read_typed(text, str | None, key="key") for text in ("null", "")] == [None, None]


@pytest.mark.parametrize("text", ['"photos"', "'my photos'", "“photos”"])
def test_quotes_that_the_shell_left_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"data.path={text}: .*write data.path={text[1:-1]}"):
        read_recipe("vision/small", parse_overrides(["out=run", f"data.path={text}"]), PretrainRecipe)


@pytest.mark.parametrize("path", ["~/photos", Path("~/photos")])
def test_a_home_is_expanded_in_shell_and_python(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    recipe = read_recipe("vision/small", {"data.path": path, "out": path}, PretrainRecipe)
    assert (recipe.sources["vision"].path, recipe.out) == ("/home/me/photos", "/home/me/photos")
    typed = parse_overrides([f"data.path={path}", "out=2023"])
    recipe = read_recipe("vision/small", typed, PretrainRecipe)
    assert (recipe.sources["vision"].path, recipe.out) == ("/home/me/photos", "2023")


@pytest.mark.parametrize("value", [2023, 1e3, True])
def test_a_file_says_that_a_number_needs_quotes(value: object) -> None:
    assert re.search(r"data\.path: expected text.*quotes", refusal({"data.path": value}))


@pytest.mark.parametrize("name", ["digits", "2023", "a: b", "[x]", Path("digits")])
def test_the_name_of_data_is_its_path(name: Any) -> None:
    given = parse_overrides([f"data={name}"]) if isinstance(name, str) else {"data": name}
    recipe = read_recipe("vision/small", {"out": "run", **given, "data.flip": 0.25}, PretrainRecipe)
    assert recipe.sources["vision"].path == str(name)
    assert (recipe.sources["vision"].size, recipe.sources["vision"].flip) == (28, 0.25)  # type: ignore[attr-defined]


def test_two_names_of_data_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.path=b.*as well"):
        read_recipe("vision/small", parse_overrides(["data=a", "data.path=b", "out=run"]), PretrainRecipe)


def test_a_section_as_a_whole_may_be_followed_by_its_keys() -> None:
    given = parse_overrides(["data.path=digits", "out=run", "mask.mask_prob=0.25", "mask={kind: random}"])
    assert read_recipe("vision/small", given, PretrainRecipe).mask == RandomMasker(mask_prob=0.25)
    with pytest.raises(ConfigError, match=r"mask\.kind=random"):
        read_recipe("vision/small", parse_overrides(["mask=random"]), PretrainRecipe)


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
        read_typed(text, int, key="key")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed"], "'seed' .*seed=VALUE"),
        (["--seed"], "'--seed' .*seed=VALUE"),
        (["=3"], "'=3'"),
        (["seed=1", "seed=2"], "seed .*twice"),
        (["lr", "=", "3"], "'lr' .*lr=3"),
        (["lr", "=3"], "'lr' .*lr=3"),
        (["lr=", "3"], "'3' .*lr=3"),
        (["lr = 3"], "'lr = 3' .*lr=3"),
    ],
)
def test_arguments_of_another_form_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
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
    ("key", "message"),
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
        ("epochs", "'train.max_steps'.*epoch"),
        ("learning_rate", "'optim.lr'"),
        ("train.lr", "'optim.lr'"),
        ("steps", "'train.max_steps'"),
        ("batch_size", "'train.batch_size'"),
        ("bs", "'train.batch_size'"),
        ("gpus", "'device'"),
        ("workers", "'data.num_workers'"),
        ("train.seed", "'seed'"),
        ("fp16", "'train.precision'"),
        ("output_dir", "'out'"),
        ("data_dir", "'data.path'"),
        ("image_size", "'data.size'"),
        ("xyzzy", "'xyzzy'$"),
    ],
)
def test_unknown_keys_name_the_nearest(key: str, message: str) -> None:
    assert re.search(message, refusal({key: 1}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.batch_size", "many", "train.batch_size: .*integer.*'many'"),
        ("train.batch_size", 2.5, "train.batch_size: .*integer.*2.5"),
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
def test_wrong_values_name_the_key(key: str, value: object, message: str) -> None:
    assert re.search(message, refusal({key: value}))


def test_all_mistakes_are_reported_together() -> None:
    message = refusal({"optim.lrr": 1, "sed": 2})
    assert "'optim.lrr'" in message
    assert "'sed'" in message


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'out'.*'data\.path'|'data\.path'.*'out'"):
        read_recipe("vision/small", {}, PretrainRecipe)


def test_a_plus_is_accepted_with_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        recipe = read_recipe("vision/small", GIVEN | {"+optim.lr": 0.25}, PretrainRecipe)
    assert recipe.optim.lr == 0.25
    assert ["+optim.lr" in message for message in caplog.messages] == [True]


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'vision/bass'.*'vision/base'"):
        recipe_values("vision/bass")


def test_overrides_leave_the_recipe_alone() -> None:
    small(optim__lr=9.0)
    assert small().optim.lr == 2e-3


def test_each_word_of_other_programs_names_a_key_that_there_is() -> None:
    settings = (PretrainRecipe, FinetuneRecipe, ProbeSettings, ExtractSettings)
    values = {"data": {"kind": "vision"}, "task": {"kind": "vision/classification"}, "mask": {"kind": "random"}}
    student = {"adapters": {"vision": {"kind": "vision"}}}
    known = {key.name for kind in settings for key in keys(kind, {**values, "model": {"student": student}})}
    for synonym in _SYNONYMS:
        assert set(synonym.keys) <= known, synonym
        for word in synonym.words.split():
            assert f"{synonym.keys[0]!r}?" in unknown_key(word, sorted(known - {word}))
