"""Errors of the commands for bad input: one line, and nothing is lost."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import SHORT, Run
from safetensors.torch import load_file, save_file
from torch import Tensor

from d2v.core import Data2Vec, load


def test_bad_input_is_one_line(made: Path, tmp_path: Path, d2v: Run) -> None:
    empty, one = tmp_path / "empty", tmp_path / "one"
    empty.mkdir()
    shutil.copytree(made / "photos/train/Bag", one / "Bag")
    run, photos, out = f"model={made / 'run'}", f"data.path={made / 'photos'}", f"out={tmp_path / 'out'}"
    cases: list[tuple[list[str], int, str]] = [
        (["pretrain", "vision/small", "data.path=nowhere", out], 1, "data.path='nowhere'"),
        (["pretrain", "vision/small", "data.path=fashion-minst", out], 1, "'fashion-mnist'"),
        (["pretrain", "vision/small", f"data.path={empty}", out], 1, "no images"),
        (["pretrain", "vision/small", out], 2, "'data.path'"),
        (["pretrain", "vision/small", photos], 2, "'out'"),
        (["pretrain", "vision/small", photos, out, "train.batch_size=61"], 1, "61"),
        (["pretrain", "vision/small", photos, out, "data.size=56", "data.resize=56"], 2, "image_size=[56, 56]"),
        (["pretrain", "vision/small", photos, out, "data.channels=3"], 1, "data.channels=3"),
        (["pretrain", "vision/small", photos, out, "device=quantum"], 2, "device='quantum'"),
        (["pretrain", "vision/small", photos, "out=/dev/null/run"], 1, "Not a directory"),
        (["pretrain", "vision/small-finetune", photos, out], 2, "`d2v finetune`"),
        (["finetune", "vision/small", run, photos, out], 2, "`d2v pretrain`"),
        (["finetune", "vision/small-finetune", "model=nowhere", photos, out], 1, "nowhere is neither"),
        (["finetune", "vision/small-finetune", photos, out], 2, "'model'"),
        (["finetune", "vision/small-finetune", run, f"data.path={made / 'photos/train/Bag'}", out], 1, "no labels"),
        (["finetune", "vision/small-finetune", run, f"data.path={one}", out, "train.batch_size=2"], 1, "two classes"),
        (["finetune", "vision/small-finetune", run, photos, out, "data.per_class=7"], 1, "data.per_class=7"),
        (["probe", run, f"data.path={one}", "probes=[knn]", "neighbours=2"], 1, "two classes"),
        (["probe", run, photos, "layers=[4]", "probes=[knn]"], 1, "layer 4 "),
        (["probe", run, photos, "layers=last"], 2, "'last'"),
        (["probe", run, photos, "poolings=[middle]"], 2, "poolings"),
        (["probe", photos], 2, "'model'"),
        (["probe", run, photos, "lables=20"], 2, "'labels'"),
        (["extract", run, photos], 2, "'out'"),
        (["extract", run, photos, "out=f.txt"], 2, ".safetensors or .npy"),
        (["evaluate", run, photos], 2, "is pretrained"),
        (["predict", f"model={made / 'classifier'}", photos, "out=p.xml"], 2, ".csv or .jsonl"),
        (["probe", f"model={made / 'classifier'}", photos, "weights=teacher"], 2, "no teacher"),
        (["data", "export-images", "digits", str(empty)], 1, f"{empty} already exists"),
    ]
    for arguments, code, word in cases:
        found, _, errors = d2v(*arguments)
        last = errors.splitlines()[-1] if errors else ""
        assert (found, last.startswith("d2v: "), word in last) == (code, True, True), f"{arguments}: {found} {errors}"
        assert "Traceback" not in errors


def test_training_skips_and_lists_what_is_broken(made: Path, tmp_path: Path, d2v: Run) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(made / "photos", photos)
    cut = min((photos / "train/Bag").iterdir())
    cut.write_bytes(cut.read_bytes()[:60])
    (photos / "train/Bag/text.png").write_text("not an image")
    steps = ["train.max_steps=8", "device=cpu"]  # an epoch of 61 files in batches of 8, and one batch more
    code, shown, errors = d2v("pretrain", "vision/small", f"data.path={photos}", f"out={tmp_path / 'run'}", *steps)
    assert (code, shown) == (0, "8 updates\n"), errors
    *_, summary, first, second = errors.splitlines()
    assert summary.startswith("2 of 61 ")
    assert cut.name in first
    assert "text.png" in second


def test_class_folders_that_differ(made: Path, tmp_path: Path, d2v: Run) -> None:
    copy = tmp_path / "photos"
    shutil.copytree(made / "photos", copy)
    (copy / "val/Bag").rename(copy / "val/Bags")
    code, _, errors = d2v(
        "finetune",
        "vision/small-finetune",
        f"model={made / 'run'}",
        f"data.path={copy}",
        f"out={tmp_path / 'out'}",
        "validation.every=1",
        *SHORT,
    )
    assert code == 1
    assert "Bags" in errors


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_broken_model_is_named(name: str, made: Path, tmp_path: Path, d2v: Run) -> None:
    model = tmp_path / "model"
    shutil.copytree(made / "run/model", model)
    whole = (model / name).read_bytes()
    (model / name).write_bytes(whole[: len(whole) // 2])
    code, _, errors = d2v("probe", f"model={model}", f"data.path={made / 'photos'}")
    assert code == 1
    assert name in errors
    (model / name).unlink()
    code, _, errors = d2v("probe", f"model={model}", f"data.path={made / 'photos'}")
    assert code == 1
    assert f"{name} is missing" in errors


def changed(source: Path, to: Path, change: Callable[[Tensor], Tensor]) -> Path:
    """A model folder with other weights in its second block."""
    shutil.copytree(source, to)
    tensors = load_file(to / "model.safetensors")
    tensors = {name: change(x) if "blocks.1" in name and x.is_floating_point() else x for name, x in tensors.items()}
    save_file(tensors, to / "model.safetensors")
    return to


def test_weights_that_are_not_finite(made: Path, tmp_path: Path, d2v: Run) -> None:
    broken = [
        changed(made / source / "model", tmp_path / source, lambda x: torch.full_like(x, math.nan))
        for source in ("run", "classifier")
    ]
    pretrained, fine_tuned = (f"model={one}" for one in broken)
    data, out = f"data.path={made / 'photos'}", f"out={tmp_path / 'f.npy'}"
    for arguments in (
        ["extract", pretrained, data, out],
        ["probe", pretrained, data],
        ["predict", fine_tuned, data],
        ["evaluate", fine_tuned, data],
        ["finetune", "vision/small-finetune", pretrained, data, f"out={tmp_path / 'new'}", *SHORT],
    ):
        code, _, errors = d2v(*arguments)
        assert code == 1, arguments
        assert "blocks.1" in errors
        assert "not finite" in errors
        assert errors.count("\n") == 1 or arguments[0] == "finetune"
    assert not (tmp_path / "f.npy").exists()
    with pytest.raises(ValueError, match="not finite"):
        load(broken[0])


def test_results_that_are_not_finite(made: Path, tmp_path: Path, d2v: Run) -> None:
    """Weights that are finite, and too large."""
    run, fine_tuned = (
        changed(made / source / "model", tmp_path / source, lambda x: x * 1e30) for source in ("run", "classifier")
    )
    data = f"data.path={made / 'photos' / 'test'}"
    for arguments in (["extract", f"model={run}", f"out={tmp_path / 'f.npy'}"], ["predict", f"model={fine_tuned}"]):
        code, _, errors = d2v(*arguments, data)
        assert code == 1, arguments
        assert ".png" in errors
        assert "precision=fp32" in errors
    assert not (tmp_path / "f.npy").exists()
    code, _, errors = d2v("evaluate", f"model={fine_tuned}", f"data.path={made / 'photos'}")
    assert code == 1
    assert "outputs" in errors


def test_a_checkpoint_of_another_model(made: Path, tmp_path: Path, d2v: Run) -> None:
    model = tmp_path / "model"
    shutil.copytree(made / "run/model", model)
    shutil.copy(made / "classifier/model/model.safetensors", model / "model.safetensors")
    code, _, errors = d2v("probe", f"model={model}", f"data.path={made / 'photos'}")
    assert code == 1
    assert errors.startswith("d2v: ")
    assert len(errors) < 2000


def test_a_missing_extra_is_one_line(made: Path, d2v: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("d2v.core.modality.find_spec", lambda name: None if name == "torchvision" else object())
    code, _, errors = d2v("pretrain", "vision/small", f"data.path={made / 'photos'}", f"out={tmp_path / 'out'}")
    assert code == 1
    assert "d2v[vision]" in errors


def test_a_modality_that_is_declared_twice_is_named_by_every_command(made: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "dup-0.1.dist-info").mkdir(parents=True)
    (site / "dup-0.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: dup\nVersion: 0.1\n")
    (site / "dup-0.1.dist-info/entry_points.txt").write_text("[d2v.modalities]\nvision = dup:modality\n")
    run, photos, out = f"model={made / 'run'}", f"data.path={made / 'photos'}", f"out={tmp_path / 'out'}"
    (tmp_path / "mine.yaml").write_text("data: {kind: vision}\ntrain: {batch_size: 4}\n")
    (tmp_path / "file.pt").write_bytes(b"PK")
    commands = [
        ["pretrain", "vision/small", photos, out],
        ["pretrain", str(tmp_path / "mine.yaml"), photos, out],
        ["recipe", "vision/small"],
        ["finetune", "vision/small-finetune", run, photos, out],
        ["evaluate", f"model={made / 'classifier'}", photos],
        ["predict", f"model={made / 'classifier'}", photos],
        ["probe", run, photos],
        ["extract", run, photos, f"out={tmp_path / 'f.npy'}"],
        ["extract", f"model={tmp_path / 'file.pt'}", photos, f"out={tmp_path / 'f.npy'}"],
        ["plot", str(made / "run"), "--out", str(tmp_path / "plots")],
        ["data", "check-images", str(made / "photos")],
        ["quickstart", "--out", str(tmp_path / "quick")],
    ]
    program = (
        "import contextlib, io, json\nfrom d2v.core.cli import main\nfound = []\n"
        f"for arguments in {[*commands, ['list'], ['recipe', 'audio/x']]!r}:\n"
        "    errors, out = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):\n"
        "        found.append([main(arguments), errors.getvalue(), out.getvalue()])\n"
        "print(json.dumps(found))"
    )
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )
    *named, (listed, _, shown), (other, error, _) = json.loads(done.stdout)
    for arguments, (code, errors, _) in zip(commands, named, strict=True):
        assert (code, errors.count("\n")) == (1, 1), f"{arguments}: {code} {errors}"
        assert "modality 'vision' is declared by d2v " in errors, f"{arguments}: {errors}"
    assert (listed, "  vision             modality 'vision' is declared by" in shown) == (0, True)
    assert (other, "unknown recipe" in error) == (2, True), "commands that do not need it still work"


def test_a_run_folder_in_use(made: Path, tmp_path: Path, d2v: Run) -> None:
    out = tmp_path / "run"
    given = ["pretrain", "vision/small", f"data.path={made / 'photos'}", f"out={out}", "device=cpu"]
    command = [sys.executable, "-m", "d2v", *given, "train.max_steps=100000", "train.checkpoint_every=1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        while not (out / "checkpoints/step-1").exists():
            assert child.poll() is None
            time.sleep(0.02)
        code, _, errors = d2v(*given, "resume=true", "train.max_steps=100000", "train.checkpoint_every=1")
        child.kill()
    assert code == 1
    assert f"process {child.pid}" in errors


def test_a_loss_that_is_not_finite(made: Path, tmp_path: Path, d2v: Run) -> None:
    out = tmp_path / "run"
    given = [f"data.path={made / 'photos'}", f"out={out}", "optim.lr=1e30", "optim.clip=0", "train.checkpoint_every=1"]
    code, _, errors = d2v("pretrain", "vision/small", *given, "train.max_steps=50", "device=cpu", "monitor.stop=false")
    assert code == 1
    assert "not finite" in errors
    assert isinstance(load(out).module, Data2Vec)
