"""What a model folder tells those who get it: the recipe and the metrics of its run, without paths of the machine."""

import json
from pathlib import Path

import pytest

import d2v.core
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe, read_recipe, resolved_text, shared_text

KEYS = {"data.path": "digits", "device": "cpu", "train.log_every": 1, "train.batch_size": 8, "train.precision": "fp32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("passing-on")
    run, classifier = str(path / "run"), str(path / "classifier")
    d2v.core.pretrain("vision/small", {**KEYS, "out": run, "train.max_steps": 2}, progress=False)
    more = {"model": run, "out": classifier, "train.max_steps": 3, "validation.every": 1, "validation.split": "test"}
    d2v.core.finetune("vision/small-finetune", {**KEYS, **more}, progress=False)
    return path


@pytest.mark.parametrize(("run", "kind"), [("run", PretrainRecipe), ("classifier", FinetuneRecipe)])
def test_the_recipe_can_be_used_again(folder: Path, run: str, kind: type) -> None:
    file = folder / run / "model" / "recipe.yaml"
    assert str(folder) not in file.read_text()
    again = {"data.path": "digits", "out": "again", **({"model": "other"} if run == "classifier" else {})}
    recipe = read_recipe(str(file), again, kind)
    assert recipe.train.batch_size == 8
    assert recipe.data.path == "digits"


@pytest.mark.parametrize(
    ("name", "kind", "paths"),
    [
        ("text/small", PretrainRecipe, {"data.tokenizer": "/home/me/gpt2", "init": "/home/me/run"}),
        ("audio/ctc", FinetuneRecipe, {"data.dictionary": "/home/me/d.txt", "model": "/home/me/run"}),
        ("audio/ctc", FinetuneRecipe, {"task.decoder.kind": "beam", "task.decoder.lm": "/home/me/lm", "model": "m"}),
    ],
)
def test_no_path_is_passed_on(name: str, kind: type, paths: dict[str, str]) -> None:
    recipe = read_recipe(name, {"data.path": "/home/me/data", "out": "/home/me/out", **paths}, kind)
    assert "/home/me" in resolved_text(recipe)
    assert "/home/me" not in shared_text(recipe)


def test_the_metrics_are_those_of_the_model(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "classifier" / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["val_accuracy"])
    assert json.loads((folder / "classifier" / "model" / "metrics.json").read_text()) == best
    assert json.loads((folder / "run" / "model" / "metrics.json").read_text())["step"] == 2


def test_a_copy_has_what_the_copied_folder_cannot_know(folder: Path, tmp_path: Path) -> None:
    d2v.core.convert(folder / "run", tmp_path / "copy")
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert {"README.md", "config.json", "model.safetensors"} <= names
    assert "recipe.yaml" not in names
