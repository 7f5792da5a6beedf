"""The page "From the original toolkit": commands that exist, keys and flags as the error messages name them."""

import re
import shlex
from pathlib import Path

import pytest

from d2v.core.cli import entry
from d2v.core.cli.habits import refuse_options
from d2v.core.files import ConfigError
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe, parse_overrides, recipe_names, recipe_values
from d2v.core.recipes.hints import unknown_key
from d2v.core.recipes.known import known_keys
from d2v.core.recipes.original_keys import ENDINGS, KEYS, NOTES

PAGE = (Path(__file__).parents[2] / "docs/migration.md").read_text()
COMMANDS = [line for line in re.findall(r"`(d2v [^`]+)`", PAGE) if "..." not in line and "NAME" not in line]
ROWS = dict(re.findall(r"^\| `([\w.-]+)`[^|]* \| (.+) \|$", PAGE, re.M))
FLAGS = {name: key.strip("`") for name, key in ROWS.items() if name.startswith("--")}


def test_rows_are_found() -> None:
    assert len(COMMANDS) > 25
    assert len(FLAGS) > 20


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_accepted(line: str) -> None:
    words = shlex.split(line)[1:]
    given = entry._parser().parse_args(words)
    if words[0] in ("pretrain", "finetune"):
        kind, values = recipe_values(given.recipe, parse_overrides(given.overrides))
        assert kind.command == words[0]
        assert values["data"]["path"]


def test_recipes_that_are_only_mentioned_exist() -> None:
    for base in ("10m", "1h", "10h", "960h"):
        assert f"audio/ctc-base-{base}" in recipe_names()
    for vox in ("10m", "1h", "10h", "100h"):
        assert f"audio/ctc-vox-{vox}" in recipe_names()
    for task in ("qnli", "mrpc", "rte", "sst-2", "mnli", "qqp", "sts-b"):
        assert {f"text/glue-{task}", f"text/v1-glue-{task}"} <= set(recipe_names())


def test_every_key_is_on_the_page() -> None:
    for theirs, ours in KEYS.items():
        assert ROWS[theirs] == f"`{ours}`"
    for theirs, ours in ENDINGS.items():
        assert ROWS[f"model.modalities.image.{theirs}"] == f"`{ours}`"
    for theirs, note in NOTES.items():
        assert ROWS[theirs] == f"{note[0].upper()}{note[1:]}."


def known(name: str) -> list[str]:
    return [key.name for key in known_keys(FinetuneRecipe if "ctc" in name or "fine" in name else PretrainRecipe, name)]


def test_keys_of_the_page_exist_and_are_the_hints() -> None:
    every = {
        name for recipe in ("audio/v1-base", "vision/base", "vision/finetune", "audio/ctc") for name in known(recipe)
    }
    every |= {"split", "model"}
    for theirs, ours in KEYS.items():
        assert ours.partition("=")[0] in every, ours
        assert unknown_key(theirs, sorted(every)).endswith(f"it is called {ours} here")
    for theirs, note in NOTES.items():
        assert note in unknown_key(theirs, sorted(every))
        for key in re.findall(r"\b((?:task|train)\.[\w.]+\w)", note):
            assert key in every or key.startswith("task.decoder."), key


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_of_the_page_are_answered_with_their_keys(flag: str) -> None:
    recipes = ("vision/base", "vision/finetune")
    answers = []
    for recipe, kind in zip(recipes, (PretrainRecipe, FinetuneRecipe), strict=True):
        with pytest.raises(ConfigError) as caught:
            refuse_options([flag, "1"], lambda kind=kind, recipe=recipe: known_keys(kind, recipe))
        answers.append(str(caught.value))
    key = FLAGS[flag]
    assert any(f"write {key}=" in answer for answer in answers), answers
