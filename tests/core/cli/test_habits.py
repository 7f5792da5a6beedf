"""Habitual spellings of arguments: the error names the right one, with exit code 2."""

import pytest

from d2v.core.cli import main

RECIPE, FINETUNE = ["pretrain", "vision/small"], ["finetune", "vision/small-finetune"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "vision/small"], "d2v pretrain"),
        (["fit"], "d2v finetune"),
        (["eval"], "d2v evaluate"),
        (["test", "model=run"], "d2v evaluate"),
        (["embed"], "d2v extract"),
        (["import", "a.pt"], "d2v convert"),
        (["sweep"], "a shell loop"),
        (["pretrian"], "'pretrain'"),
        (["Evaluate"], "'evaluate'"),
        (["fly"], "known: quickstart"),
        ([*RECIPE, "--data.path=photos"], "write data.path=photos"),
        ([*RECIPE, "--data.path", "photos", "out=run"], "write data.path=photos"),
        (["pretrain", "--data.path", "photos", "vision/small"], "write data.path=photos"),
        ([*RECIPE, "-o", "run"], "write out=run"),
        ([*RECIPE, "--out", "run"], "write out=run"),
        ([*RECIPE, "--lr", "3"], "write optim.lr=3"),
        ([*RECIPE, "--epochs=3"], "write train.max_steps=3"),
        ([*RECIPE, "--batch-size", "8"], "write train.batch_size=8"),
        ([*RECIPE, "--resume"], "write resume=true"),
        ([*RECIPE, "--resume", "run"], "write resume=true"),
        ([*FINETUNE, "-m", "run"], "write model=run"),
        (["probe", "--model", "run"], "write model=run"),
        (["extract", "model=run", "-o", "f.npy"], "write out=f.npy"),
        (["evaluate", "--data", "photos"], "write data=photos"),
        (["evaluate", "-d", "photos"], "write data=photos"),
        (["probe", "--image-size", "32"], "write data.size=32"),
        (["recipe", "vision/small", "--lr=3"], "write optim.lr=3"),
        (["pretrain", "--config-name", "base_images_only_task"], "recipe comes first"),
        ([*RECIPE, "--config-dir=conf"], "recipe file comes first"),
        ([*FINETUNE, "-m", "optim.lr=1e-5,2e-5"], "optim.lr=1e-5,2e-5"),
        (["probe", "--wings"], "write wings=VALUE"),
    ],
)
def test_a_habit_of_other_programs_is_answered(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.startswith("d2v: ")
    assert shown.count("\n") == 1


def test_help_is_given_whatever_else_stands_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "--lr", "3", "--help"])
    assert stop.value.code == 0
    assert "usage" in capsys.readouterr().out
