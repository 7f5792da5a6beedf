"""Arguments and help texts of commands: the keys of settings classes, and the parameters of calls."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import attrs
import pytest

from d2v.core.cli.arguments import Keys, Options, RecipeAndKeys, summary_and_details
from d2v.core.cli.command import Parser
from d2v.core.files import ConfigError, to_plain
from d2v.core.jobs.extraction import ExtractSettings
from d2v.core.jobs.fine_tuned import UseSettings
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.paths import is_path
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe
from d2v.core.recipes.yaml_text import yaml_scalar

SECTIONS = {"data", "task", "model", "mask", "optim", "train", "monitor", "validation", "freeze", "sequences"}


@pytest.fixture(autouse=True)
def a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")


def help_of(takes: Callable[[Parser], None]) -> str:
    parser = Parser()
    takes(parser)
    assert parser.format_help() == parser.format_help()
    return parser.format_help()


def listed(shown: str) -> list[tuple[str, str]]:
    """The keys of a help text, with what is said of each."""
    keys = shown.partition("keys:\n")[2].partition("\n\n")[0]
    return [(name, " ".join(text.split())) for name, text in re.findall(r"^  (\S+) (.*(?:\n   .*)*)", keys, re.M)]


@pytest.mark.parametrize("settings", [UseSettings, ExtractSettings, ProbeSettings, PretrainRecipe, FinetuneRecipe])
def test_each_key_appears_once_with_its_default(settings: type) -> None:
    takes = RecipeAndKeys if issubclass(settings, PretrainRecipe | FinetuneRecipe) else Keys
    shown = listed(help_of(takes(settings)))
    expected = {"data.path": "(required)"}
    for one in attrs.fields(settings):
        if one.name in SECTIONS and one.type != str | None and not is_path(one.type):
            expected[f"{one.name}.*"] = ""
        elif one.default is attrs.NOTHING:
            expected[one.name] = "(required)"
        else:
            given = one.default.factory() if isinstance(one.default, attrs.Factory) else one.default
            expected[one.name] = f"(default: {yaml_scalar(to_plain(given))})"
    assert sorted(name for name, _ in shown) == sorted(expected)
    for name, text in shown:
        assert text.endswith(expected[name])
        assert len(text) > len(expected[name]) + 1, f"nothing is said of {name}"


def test_keys_that_have_to_be_given_come_first() -> None:
    assert [name for name, _ in listed(help_of(Keys(ExtractSettings)))][:3] == ["model", "data.path", "out"]


def test_a_recipe_says_where_all_keys_are() -> None:
    assert "d2v recipe" in help_of(RecipeAndKeys(PretrainRecipe))
    assert "keys:" not in help_of(RecipeAndKeys())


def test_what_was_given_is_what_the_call_takes() -> None:
    parser, takes = Parser(), RecipeAndKeys(PretrainRecipe)
    takes(parser)
    given = parser.parse_args(["vision/small", "optim.lr=1e-3"])
    assert takes.values(given) == {"recipe": "vision/small", "overrides": {"optim.lr": "1e-3"}}


class Show(Protocol):
    """Something that is called later."""

    def __call__(
        self,
        *,
        out: str | os.PathLike[str],
        minutes: float | None = None,
        seed: int = 0,
        form: Literal["svg", "png"] = "svg",
        data_path: Path | None = None,
        progress: bool = True,
    ) -> None:
        """Show it.

        Args:
            out: folder to be made.
            minutes: for all 100% of it; None = as long as it takes.
            seed: of all that is
                random.
            form: of images.
            data_path: where from.
            progress: not typed.
        """


def test_a_protocol_gives_options() -> None:
    options, parser = Options(Show, leave_out=("progress",)), Parser()
    options(parser)
    expected = {"out": "a", "minutes": None, "seed": 0, "form": "svg", "data_path": None}
    assert options.values(parser.parse_args(["--out", "a"])) == expected
    given = ["--out", "a", "--minutes", "2", "--seed", "3", "--form", "png", "--data-path", "b"]
    expected = {"out": "a", "minutes": 2.0, "seed": 3, "form": "png", "data_path": Path("b")}
    assert options.values(parser.parse_args(given)) == expected
    for wrong in ([], ["--out", "a", "--seed", "x"], ["--out", "a", "--form", "gif"]):
        with pytest.raises(ConfigError):
            parser.parse_args(wrong)


def test_the_help_of_options_is_that_of_the_docstring() -> None:
    shown = " ".join(help_of(Options(Show, leave_out=("progress",))).split())
    for line in (
        "--out OUT folder to be made (required)",
        "--minutes MINUTES for all 100% of it; default: as long as it takes",
        "--seed SEED of all that is random (default: 0)",
    ):
        assert line in shown


def test_a_sequence_stands_without_a_name() -> None:
    def draw(runs: Sequence[str], *, images: int = 8) -> None:
        """Draw.

        Args:
            runs: folders.
            images: how many.
        """

    options, parser = Options(draw), Parser()
    options(parser)
    assert options.values(parser.parse_args(["a", "b"])) == {"runs": ["a", "b"], "images": 8}
    assert re.search(r"RUNS +folders\n", parser.format_help())


@pytest.mark.parametrize("kind", [bool, Callable[[], None], dict[str, int]])
def test_what_cannot_be_typed_is_left_out_by_name(kind: Any) -> None:
    def call(wrong: Any = None) -> None: ...

    call.__annotations__["wrong"] = kind
    with pytest.raises(TypeError, match=r"wrong.*leave it out"):
        Options(call)(Parser())
    Options(call, leave_out=["wrong"])(Parser())


def test_a_command_says_what_its_call_says() -> None:
    def look() -> None:
        """Look at something.

        Slowly, `at` times.

        With care.

        Raises:
            ValueError: never.
        """

    assert summary_and_details(look) == ("look at something", "Slowly, `at` times.\n\nWith care.")
