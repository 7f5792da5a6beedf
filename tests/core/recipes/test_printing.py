"""A printed recipe is the recipe, with a word about every field."""

from pathlib import Path

import pytest

from d2v.core.files import ConfigError
from d2v.core.recipes import PretrainRecipe, as_yaml, read_recipe, recipe_names, recipe_values, resolved_text
from d2v.core.recipes.schema import keys

GIVEN = {"data.path": "digits", "out": "run"}
PRETRAIN = [name for name in recipe_names() if recipe_values(name)[0] is PretrainRecipe]


@pytest.mark.parametrize("name", recipe_names())
def test_every_field_has_a_comment(name: str) -> None:
    kind, values = recipe_values(name)
    bare = [
        key.name
        for key in keys(kind, values)
        if not key.comment and not key.name.endswith((".vision", ".audio", ".text"))
    ]
    assert bare == []


@pytest.mark.parametrize("name", recipe_names())
def test_comments_write_none_as_yaml_does(name: str) -> None:
    comments = " ".join(key.comment for key in keys(*recipe_values(name)))
    assert "null" in comments
    assert "None" not in comments


@pytest.mark.parametrize("name", PRETRAIN)
def test_the_printed_recipe_is_the_recipe(name: str, tmp_path: Path) -> None:
    kind, values = recipe_values(name, GIVEN)
    path = tmp_path / "mine.yaml"
    path.write_text(as_yaml(kind, values, comments=True))
    assert read_recipe(str(path), None, PretrainRecipe) == read_recipe(name, GIVEN, PretrainRecipe)


def test_what_is_missing_stands_out() -> None:
    text = as_yaml(*recipe_values("vision/base"), comments=True)
    assert [line.split("#")[0].strip() for line in text.splitlines() if "???" in line] == ["out: ???", "path: ???"]


def test_the_text_of_a_run_is_a_recipe_and_leaves_out_what_may_change(tmp_path: Path) -> None:
    recipe = read_recipe("vision/small", GIVEN | {"seed": 5}, PretrainRecipe)
    other = read_recipe(
        "vision/small", GIVEN | {"seed": 5, "out": "b", "resume": True, "device": "cpu"}, PretrainRecipe
    )
    assert resolved_text(recipe) == resolved_text(other)
    assert resolved_text(recipe) != resolved_text(read_recipe("vision/small", GIVEN, PretrainRecipe))
    path = tmp_path / "config.yaml"
    path.write_text(resolved_text(recipe))
    assert read_recipe(str(path), {"out": "run"}, PretrainRecipe) == recipe


@pytest.mark.parametrize("text", ["- 1\n", "", "[", "3"])
def test_a_file_that_is_no_recipe(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml is no"):
        recipe_values(str(path))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        recipe_values("nowhere.yaml")
