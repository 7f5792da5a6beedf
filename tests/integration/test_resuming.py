"""What a run may be resumed with, what is refused, longer runs, and new runs from the weights of others."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Run
from safetensors.torch import load_file

from d2v.core.files import open_model
from d2v.core.jobs import finetune, kernels, pretrain
from d2v.core.jobs.resuming import allowed_changes
from d2v.core.model import Data2Vec
from d2v.core.recipes import PretrainRecipe, read_recipe, resolved_text
from d2v.core.train import MemorySource, RunFolderError

TINY = {
    "device": "cpu",
    "train.batch_size": 8,
    "train.precision": "fp32",
    "train.kernels": "plain",
    "train.checkpoint_every": 2,
    "train.log_every": 2,
    "train.max_steps": 4,
    "model.student.encoder.depth": 1,
    "model.targets.layers": 1,
    "model.num_masks": 2,
    "monitor.stop": False,
}
CONSTANT = {"optim.schedule.warmup": 2, "optim.schedule.min_lr": 2e-3, "model.teacher.schedule.anneal": 2}
"""Rates that do not depend on the length of the run after two updates."""


def train(out: Path, data: Path, **more: Any) -> None:
    keys = {key.replace("__", "."): value for key, value in more.items()}
    pretrain("vision/small", {**TINY, "data.path": str(data), "out": str(out), **keys}, progress=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from d2v.core.cli import main

    folder = tmp_path_factory.mktemp("data") / "photos"
    assert main(["data", "export-images", "fashion-mnist", str(folder), "--per-class", "3"]) == 0
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A run of four updates, at the end of its schedule."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train(out, photos)
    return out


def test_the_kernels_of_a_run_are_recorded_and_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another measurement on resume changes neither the run's numbers nor its configuration."""
    ratios = {"onednn-linear": 0.5}
    monkeypatch.setattr(kernels, "measured", lambda model, precision: dict(ratios))
    for name in ("whole", "resumed"):
        train(tmp_path / name, photos, train__kernels="auto")
    config = (tmp_path / "whole/config.yaml").read_text()
    assert "kernels: [onednn-linear]" in config
    assert "kernels: [auto]" in (tmp_path / "whole/model/recipe.yaml").read_text()  # for other machines
    for later in ("step-4", "../model"):
        shutil.rmtree(tmp_path / "resumed/checkpoints" / later)
    ratios["onednn-linear"] = 2.0
    train(tmp_path / "resumed", photos, resume=True, train__kernels="auto")
    assert (tmp_path / "resumed/config.yaml").read_text().replace("resumed", "whole") == config
    assert not (tmp_path / "resumed/changes.jsonl").exists()
    states = [load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "resumed")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    train(tmp_path / "resumed", photos, resume=True)
    assert "train.kernels" in (tmp_path / "resumed/changes.jsonl").read_text()


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "run"))


def weights(out: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(out / f"checkpoints/step-{step}/model.safetensors")


def changes(out: Path) -> list[str]:
    file = out / "changes.jsonl"
    return [json.loads(line)["change"] for line in file.read_text().splitlines()] if file.exists() else []


def test_what_cannot_change_the_result_may_change(tmp_path: Path, run: Path, photos: Path) -> None:
    moved = shutil.copytree(photos, tmp_path / "elsewhere")
    train(run, moved, resume=True, data__num_workers=1, train__log_every=1, train__checkpoint_every=3, train__keep=5)
    found = changes(run)
    assert {change.split()[0] for change in found} == {
        "data.path", "data.num_workers", "train.log_every", "train.checkpoint_every", "train.keep",
    }  # fmt: skip
    assert "num_workers: 1" in (run / "config.yaml").read_text()
    train(run, moved, resume=True, data__num_workers=1, train__log_every=1, train__checkpoint_every=3, train__keep=5)
    assert changes(run) == found, "what is no longer new is not said again"


@pytest.mark.parametrize(
    ("change", "key"),
    [({"optim__lr": 1e-3}, "optim.lr: 0.001"), ({"seed": 3}, "seed: 3")],
)
def test_everything_else_is_refused(run: Path, photos: Path, change: dict[str, Any], key: str) -> None:
    before = (run / "config.yaml").read_text()
    with pytest.raises(RunFolderError, match=rf"\+.*{key}.*init="):
        train(run, photos, resume=True, **change)
    assert (run / "config.yaml").read_text() == before


def test_an_update_keeps_its_number_of_batches(run: Path, photos: Path) -> None:
    before = (run / "config.yaml").read_text()
    with pytest.raises(RunFolderError, match=r"1 batches.*would have 2.*accumulate=1"):
        train(run, photos, resume=True, train__accumulate=2)
    assert (run / "config.yaml").read_text() == before


@pytest.mark.parametrize("classes", [1, 8])
def test_other_samples_are_refused_or_accepted_by_key(tmp_path: Path, photos: Path, classes: int) -> None:
    data, out = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "run"
    train(out, data, **CONSTANT_KEYS)
    for folder in sorted((data / "train").iterdir())[:classes]:
        for image in folder.iterdir():
            image.unlink()
    left = 30 - 3 * classes
    longer = {"train__max_steps": 6, "train__batch_size": 2 if classes == 8 else 8}
    if classes == 8:
        shutil.rmtree(out)  # an epoch of fewer batches than the place of the checkpoint
        train(out, photos, **CONSTANT_KEYS, train__batch_size=2)
    with pytest.raises(RunFolderError, match=rf"30 samples then, {left} samples now.*accept=data"):
        train(out, data, resume=True, **CONSTANT_KEYS, **longer)
    assert not changes(out)
    train(out, data, resume=True, accept="data", **CONSTANT_KEYS, **longer)
    assert any(f"{left} samples now; a new epoch begins" in change for change in changes(out))
    assert weights(out, 6)


CONSTANT_KEYS = {key.replace(".", "__"): value for key, value in CONSTANT.items()}


def test_as_many_samples_of_other_names_are_noticed(tmp_path: Path, run: Path, photos: Path) -> None:
    data = shutil.copytree(photos, tmp_path / "photos")
    image = next((data / "train" / "Bag").iterdir())
    image.rename(image.with_name("renamed.png"))
    with pytest.raises(RunFolderError, match=r"still 30 samples.*accept=data"):
        train(run, data, resume=True)


def test_a_longer_run_is_exact_where_no_schedule_changes(tmp_path: Path, photos: Path) -> None:
    train(tmp_path / "short", photos, **CONSTANT_KEYS)
    train(tmp_path / "short", photos, **CONSTANT_KEYS, resume=True, train__max_steps=8)
    train(tmp_path / "long", photos, **CONSTANT_KEYS, train__max_steps=8)
    ours, theirs = weights(tmp_path / "short", 8), weights(tmp_path / "long", 8)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert changes(tmp_path / "short") == ["train.max_steps 4 -> 8: schedules up to here are the same"]
    assert load_file(tmp_path / "short/model/model.safetensors").keys() == ours.keys()
    assert all(torch.equal(a, ours[n]) for n, a in load_file(tmp_path / "short/model/model.safetensors").items())


def test_a_longer_run_needs_consent_where_rates_change(run: Path, photos: Path) -> None:
    with pytest.raises(RunFolderError, match=r"4 -> 8.*finished after.*learning rate.*accept=schedule.*init="):
        train(run, photos, resume=True, train__max_steps=8)
    train(run, photos, resume=True, train__max_steps=8, accept="schedule")
    (change,) = changes(run)
    assert "learning rate" in change
    train(run, photos, resume=True, train__max_steps=8)
    with pytest.raises(RunFolderError, match=r"max_steps=6.*8 updates already"):
        train(run, photos, resume=True, train__max_steps=6)


def test_a_new_run_begins_with_the_weights_of_another(tmp_path: Path, begun: Path, photos: Path) -> None:
    still = {"optim__lr": 0.0, "model__teacher__schedule__start": 1.0, "model__teacher__schedule__end": 1.0}
    keys = {**still, "init": str(begun), "mask__mask_prob": 0.5, "train__max_steps": 2}
    train(tmp_path / "new", photos, **keys)
    old, new = open_model(begun), open_model(tmp_path / "new")
    assert isinstance(old.module, Data2Vec)
    student, teacher = old.module.student.state_dict(), old.module.teacher.module.state_dict()
    assert any(not torch.equal(tensor, student[name]) for name, tensor in teacher.items())
    for name, tensor in new.module.state_dict().items():
        assert torch.equal(tensor, old.module.state_dict()[name]), name
    assert f"init: {begun}" in (tmp_path / "new/config.yaml").read_text()
    assert [one.how for one in new.description.seen] == ["pretrain"]
    train(tmp_path / "new", photos, **keys, resume=True)


def test_a_classifier_gives_its_encoder_to_student_and_teacher(tmp_path: Path, begun: Path, photos: Path) -> None:
    keys = {"model": str(begun), "data.path": str(photos), "out": str(tmp_path / "clf"), "device": "cpu"}
    finetune("vision/small-finetune", {**keys, "train.max_steps": 1, "train.batch_size": 4}, progress=False)
    still = {"optim__lr": 0.0, "model__teacher__schedule__start": 1.0, "model__teacher__schedule__end": 1.0}
    train(tmp_path / "new", photos, **still, init=str(tmp_path / "clf"), train__max_steps=1)
    encoder = open_model(tmp_path / "clf").module.get_submodule("encoder").state_dict()
    new = open_model(tmp_path / "new").module
    assert isinstance(new, Data2Vec)
    for module in (new.student, new.teacher.module):
        assert all(torch.equal(tensor, encoder[name]) for name, tensor in module.state_dict().items())


def test_other_shapes_are_named_and_other_predictors_begin_untrained(
    tmp_path: Path, begun: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"init=.*model.student.*extra_tokens"):
        train(tmp_path / "wide", photos, init=str(begun), model__student__encoder__block__embed_dim=48)
    train(tmp_path / "new", photos, init=str(begun), model__predictors__vision__num_layers=2, train__max_steps=1)
    assert "predictors" in caplog.text


def test_data_that_cannot_be_compared_stay_where_they_are(run: Path, photos: Path) -> None:
    keys = {**TINY, "data.path": str(photos / "train"), "out": str(run)}
    recipe = read_recipe("vision/small", keys, PretrainRecipe)
    there = (run / "config.yaml").read_text()
    assert allowed_changes(read_recipe("vision/small", {**keys, "data.path": str(photos)}, PretrainRecipe), there,
                           unknown()) == []  # fmt: skip
    with pytest.raises(RunFolderError, match=r"-data.path"):
        allowed_changes(recipe, there, unknown())


def unknown() -> Any:
    from d2v.core.model import Batch

    return MemorySource([Batch(source=torch.zeros(1, 1))])


def test_other_threads_are_said(run: Path, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        train(run, photos, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert "no longer bit-identical" in caplog.text


def test_what_belongs_to_one_start_is_not_written_down(run: Path) -> None:
    recipe = read_recipe("vision/small", {**TINY, "data.path": "x", "out": "y", "accept": ["data"]}, PretrainRecipe)
    text = resolved_text(recipe)
    assert not {"out", "resume", "device", "accept"} & {line.split(":")[0] for line in text.splitlines()}


def test_a_consent_that_is_none(d2v: Run, tmp_path: Path, photos: Path) -> None:
    code, _, errors = d2v("pretrain", "vision/small", f"data.path={photos}", f"out={tmp_path / 'r'}", "accept=dta")
    assert code == 2
    assert "accept" in errors
