"""What belongs to a model stays with it: how its input is prepared, and its further files."""

import re
from pathlib import Path

import pytest
from commands import SHORT, Run
from torch import nn

from d2v.core.description import Description
from d2v.core.files import ConfigError, description_to_plain, open_model, save
from d2v.core.jobs import finetune, probe
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.core.train import RunFolder

BRIGHT = ["data.mean=[0.7]", "data.std=[0.2]"]


@pytest.fixture(scope="module")
def bright(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on input that is prepared in another way than any recipe says."""
    from d2v.core.cli import main

    run = tmp_path_factory.mktemp("bright") / "run"
    assert main(["pretrain", "vision/small", f"data.path={made / 'photos'}", f"out={run}", *BRIGHT, *SHORT]) == 0
    return run


def given(made: Path, run: Path, out: Path, **more: object) -> dict[str, object]:
    short: dict[str, object] = {"train.max_steps": 2, "train.log_every": 1, "device": "cpu"}
    return {"model": str(run), "data.path": str(made / "photos"), "out": str(out), **short, **more}


@pytest.mark.parametrize("recipe", ["vision/small-finetune", "vision/finetune"])
def test_a_model_hands_its_preparation_on(made: Path, bright: Path, tmp_path: Path, recipe: str) -> None:
    finetune(recipe, given(made, bright, tmp_path / "out", **{"data.num_workers": 0}), progress=False)
    data = open_model(tmp_path / "out").description.data["vision"]
    assert (data["mean"], data["std"], data["channels"], data["size"]) == ([0.7], [0.2], 1, 28)


def test_a_contradiction_is_refused_by_key(made: Path, bright: Path, tmp_path: Path, d2v: Run) -> None:
    arguments = given(made, bright, tmp_path / "out", **{"data.mean": [0.3]})
    with pytest.raises(ConfigError, match=r"data\.mean.*0\.7"):
        finetune("vision/small-finetune", arguments, progress=False)
    finetune("vision/small-finetune", {**arguments, "preparation": "data"}, progress=False)
    assert open_model(tmp_path / "out").description.data["vision"]["mean"] == [0.3]
    with pytest.raises(ConfigError, match=r"data\.std"):
        probe({"model": str(bright), "data.path": str(made / "photos"), "data.std": [1.0]}, progress=False)
    for command in ("evaluate", "predict", "extract"):
        out = ["out=features.npy"] if command == "extract" else []
        model = bright if command == "extract" else tmp_path / "out"
        code, _, errors = d2v(command, f"model={model}", f"data.path={made / 'photos'}", "data.mean=0.9", *out)
        assert (code, "data.mean" in errors) == (2, True), errors


def described(files: dict[str, bytes]) -> tuple[nn.Module, Description]:
    recipe = read_recipe("vision/small", {"data.path": "digits", "out": "unused"}, PretrainRecipe)
    description = recipe.description()
    return description.build(), Description(model=description.model, data=description.data, files=files)


def test_files_stay_with_the_model(tmp_path: Path) -> None:
    model, description = described({"tokenizer.json": b"{}", "dict.txt": b"a 1\n"})
    save(tmp_path / "model", model, description)
    assert open_model(tmp_path / "model").description.files == description.files
    run = RunFolder(
        tmp_path / "run", config="seed: 0\n", description=description_to_plain(description), files=description.files
    )
    run.save(1, model.state_dict(), {"step": 1})
    run.finish(1)
    run.close()
    assert open_model(tmp_path / "run" / "model").description.files == description.files
    assert not (tmp_path / "run" / "model" / "training.pt").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "../outside", "a/b", ""])
def test_names_of_files_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    model, description = described({name: b""})
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        save(tmp_path / "model", model, description)
    assert not (tmp_path / "model").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    model, description = described({"dict.txt": b"a 1\n"})
    save(tmp_path / "model", model, description)
    (tmp_path / "model" / "dict.txt").unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=r"dict\.txt"):
        open_model(tmp_path / "model")
