"""The commands on real images, from a folder to predictions."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import SHORT, Run
from PIL import Image

from d2v.core import Data2Vec, load, pretrain, probe
from d2v.core.files import open_model
from d2v.core.jobs.prediction import predict
from d2v.vision import ImageClassifier


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_a_run_folder_holds_what_is_promised(made: Path) -> None:
    run = made / "run"
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "metrics.jsonl", "checkpoints", "model"}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-2", "step-4"]
    metrics = lines(run / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [2, 4]
    assert {"loss", "lr", "decay", "target_var", "pred_var", "data_wait"} <= set(metrics[0])
    model = load(run).module
    assert isinstance(model, Data2Vec)
    assert model.teacher_start(None) == "raw"


def test_a_fine_tuned_model_is_read_back(made: Path) -> None:
    stored = open_model(made / "classifier")
    assert isinstance(stored.module, ImageClassifier)
    assert stored.description.labels is not None
    assert stored.description.labels.num_outputs == 10
    assert stored.description.data == open_model(made / "run").description.data


def test_fine_tuning_starts_from_the_pretrained_weights(made: Path, tmp_path: Path, d2v: Run) -> None:
    """With rate 0 what comes out is what went in."""
    given = [f"model={made / 'run'}", f"data.path={made / 'photos'}", "optim.lr=0", "optim.weight_decay=0", *SHORT]
    for weights in ("student", "teacher", "untrained"):
        code, _, errors = d2v(
            "finetune", "vision/small-finetune", *given, f"out={tmp_path / weights}", f"weights={weights}"
        )
        assert code == 0, errors
    model = load(made / "run").module
    assert isinstance(model, Data2Vec)
    source = {"student": model.student, "teacher": model.teacher.module}
    for weights, part in source.items():
        tuned = open_model(tmp_path / weights).module.get_submodule("encoder").state_dict()
        for name, tensor in part.state_dict().items():
            torch.testing.assert_close(tuned[name], tensor, rtol=0, atol=0, msg=f"{weights} {name}")
    fresh = open_model(tmp_path / "untrained").module.get_submodule("encoder").state_dict()
    name = next(name for name in fresh if "blocks.0" in name and fresh[name].dim() == 2)
    assert not torch.equal(fresh[name], model.student.state_dict()[name])


def test_schedules_of_the_recipe_reach_the_run(made: Path, tmp_path: Path, d2v: Run) -> None:
    decay = [f"optim.weight_decay_schedule.{key}" for key in ("kind=beit-cosine", "final=0.25")]
    given = [f"model={made / 'run'}", f"data.path={made / 'photos'}", f"out={tmp_path / 'out'}", *decay, *SHORT]
    code, _, errors = d2v(
        "finetune",
        "vision/small-finetune",
        *given,
        "optim.weight_decay=0.05",
        "validation.every=1",
        "validation.start=3",
    )
    assert code == 0, errors
    metrics = lines(tmp_path / "out" / "metrics.jsonl")
    # After updates 0 to 3 of 4: 0.25 - 0.1 (1 + cos(pi n / 4)).
    assert [line["weight_decay"] for line in metrics if "weight_decay" in line] == pytest.approx(
        [0.0793, 0.2207], abs=1e-4
    )
    assert [line["step"] for line in metrics if "val_accuracy" in line] == [3, 4]


def test_a_frozen_encoder_stays_as_it_was(made: Path, tmp_path: Path, d2v: Run) -> None:
    given = [f"model={made / 'run'}", f"data.path={made / 'photos'}", f"out={tmp_path / 'out'}", "freeze.updates=4"]
    code, _, errors = d2v("finetune", "vision/small-finetune", *given, *SHORT)
    assert code == 0, errors
    tuned = open_model(tmp_path / "out").module
    pretrained = load(made / "run").encoder
    for name, tensor in pretrained.state_dict().items():
        assert torch.equal(tuned.get_submodule("encoder").state_dict()[name], tensor), name
    assert tuned.get_submodule("head").state_dict()["bias"].abs().max() > 0, "the head has learned"


def test_evaluate_tells_figures_and_tables(made: Path, tmp_path: Path, d2v: Run) -> None:
    out = tmp_path / "figures.json"
    code, shown, _ = d2v("evaluate", f"model={made / 'classifier'}", f"data.path={made / 'photos'}", f"out={out}")
    assert code == 0
    figures = json.loads(out.read_text())
    assert figures["split"] == "test"
    assert f"accuracy       {figures['accuracy']:.4g}" in shown
    assert "confusion matrix" in shown
    assert "T-shirt or top" in shown
    rows = predict({"model": str(made / "classifier"), "data.path": str(made / "photos/test")}, progress=False)
    right = sum(row["file"].split("/")[0] == row["class"] for row in rows)
    assert figures["accuracy"] == pytest.approx(100 * right / len(rows))


def test_evaluate_goes_by_the_names_of_classes(made: Path, tmp_path: Path, d2v: Run) -> None:
    """A folder with some of the classes only: numbers by place would be wrong."""
    part = tmp_path / "part"
    for name in ("Bag", "Trouser"):
        shutil.copytree(made / "photos/test" / name, part / name)
    code, shown, errors = d2v("evaluate", f"model={made / 'classifier'}", f"data.path={part}")
    assert code == 0, errors
    table = shown[shown.index("class ") :]
    counts = {line.rsplit(maxsplit=4)[0]: line.split()[-4] for line in table.splitlines()[1:11]}
    assert {name: count for name, count in counts.items() if count != "0"} == {"Bag": "6", "Trouser": "6"}
    (part / "Bags").mkdir()
    shutil.copy(next((part / "Bag").iterdir()), part / "Bags")
    code, _, errors = d2v("evaluate", f"model={made / 'classifier'}", f"data.path={part}")
    assert code == 1
    assert "'Bags'" in errors
    assert "did you mean 'Bag'?" in errors


def test_predict_reads_any_folder(made: Path, tmp_path: Path, d2v: Run) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    rng = np.random.default_rng(0)
    for number, mode in enumerate(["L", "RGB", "RGBA", "CMYK"]):
        image = Image.fromarray(rng.integers(0, 255, (40, 30), dtype=np.uint8)).convert(mode)
        image.save(flat / f"{number}.{'tif' if mode == 'CMYK' else 'png'}")
    (flat / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (flat / "notes.txt").write_text("not an image")
    table, objects = tmp_path / "p.csv", tmp_path / "p.jsonl"
    for out in (table, objects):
        code, shown, errors = d2v("predict", f"model={made / 'classifier'}", f"data.path={flat}", f"out={out}")
        assert code == 0, errors
        assert shown == f"4 predictions in {out}\n"
        assert "1 of 5 samples could not be read:" in errors
        assert "broken.png" in errors
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "3.tif"]
    assert [str(row["class"]) for row in lines(objects)] == [row["class"] for row in rows]
    code, shown, _ = d2v("predict", f"model={made / 'classifier'}", f"data.path={flat}")
    assert shown == table.read_text()


# --- probe and extract ------------------------------------------------------------------------------------------------


def test_threads_are_those_that_were_asked_for(made: Path, tmp_path: Path, d2v: Run) -> None:
    before = torch.get_num_threads()
    try:
        out, data = f"out={tmp_path / 'f.npy'}", f"data={made / 'photos'}"
        assert d2v("extract", f"model={made / 'run'}", data, out, "threads=3")[0] == 0
        assert torch.get_num_threads() == 3
        assert d2v("extract", f"model={made / 'run'}", data, out)[0] == 0
        assert torch.get_num_threads() == 3, "not given = left alone"
        run = tmp_path / "run"
        assert d2v("pretrain", "vision/small", data, f"out={run}", "threads=2", *SHORT)[0] == 0
        assert torch.get_num_threads() == 2
        assert "threads" not in (run / "config.yaml").read_text(), "a run may go on with another number"
        code, _, errors = d2v("probe", f"model={made / 'run'}", data, "threads=0")
        assert (code, "threads" in errors) == (2, True)
        code, _, errors = d2v("quickstart", "--out", str(tmp_path / "out"), "--threads", "0")
        assert (code, "threads" in errors) == (1, True)
    finally:
        torch.set_num_threads(before)


def test_names_that_look_like_numbers_and_a_home(
    made: Path, tmp_path: Path, d2v: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "photos", tmp_path / "2023")
    assert d2v("pretrain", "vision/small", "data=2023", "out=1e3", *SHORT)[0] == 0
    assert d2v("extract", "model=1e3", "data=~/2023", "out=~/try #2.npy")[0] == 0
    assert (tmp_path / "try #2.npy").is_file()
    assert d2v("extract", "model=~/1e3", "data.path=~/2023", "data.size=28", "out=f.npy")[0] == 0
    found = probe(
        {"model": Path("~/1e3"), "data": Path("~/2023"), "probes": ["knn"], "baselines": False}, progress=False
    )
    assert found.num_test > 0


def test_check_images_counts_and_lists_what_is_broken(made: Path, tmp_path: Path, d2v: Run) -> None:
    code, shown, _ = d2v("data", "check-images", made / "photos")
    assert code == 0
    assert "train: 60 images of 10 classes" in shown
    assert "  Bag                      6\n" in shown
    copy = tmp_path / "photos"
    shutil.copytree(made / "photos", copy)
    whole = next((copy / "val/Bag").iterdir())
    whole.write_bytes(whole.read_bytes()[:60])
    code, shown, errors = d2v("data", "check-images", copy)
    assert code == 1
    assert f"Bag/{whole.name}" in shown
    assert "1 files of" in errors


# --- stopping and going on --------------------------------------------------------------------------------------------


def test_a_stopped_run_is_saved(tmp_path: Path) -> None:
    given = ["vision/small", "data.path=digits", "train.batch_size=4", "train.checkpoint_every=2", "device=cpu"]
    command = [sys.executable, "-m", "d2v", "pretrain", *given, f"out={tmp_path / 'cut'}", "train.log_every=2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        while not (tmp_path / "cut/checkpoints/step-2").exists():
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "continue with resume=true" in errors
    assert "Traceback" not in errors
    steps = [line["step"] for line in lines(tmp_path / "cut/metrics.jsonl")]
    assert steps == sorted(set(steps))
    assert not (tmp_path / "cut/model").exists()
    assert isinstance(load(tmp_path / "cut").module, Data2Vec), "the newest checkpoint is the model"


def test_resume_wants_the_same_recipe(made: Path, tmp_path: Path, d2v: Run) -> None:
    run = tmp_path / "run"
    shutil.copytree(made / "run", run)
    given = ["pretrain", "vision/small", f"data.path={made / 'photos'}", f"out={run}", *SHORT]
    code, _, errors = d2v(*given)
    assert code == 1
    assert "holds a run already; resume it with resume=true" in errors
    code, shown, errors = d2v(*given, "resume=true")
    assert (code, shown) == (0, "4 updates\n"), errors
    code, _, errors = d2v(*given, "resume=true", "optim.lr=0.5")
    assert code == 1
    assert "was started with another configuration" in errors
    assert "lr: 0.5" in errors
    given = ["finetune", "vision/small-finetune", f"model={run}", f"data.path={made / 'photos'}", *SHORT]
    code, _, errors = d2v(*given, f"out={run}", "resume=true")
    assert code == 1
    assert "was started with another configuration" in errors


def test_a_run_goes_on_in_the_precision_it_was_begun_in(
    made: Path, tmp_path: Path, d2v: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["pretrain", "vision/small", f"data.path={made / 'photos'}", f"out={tmp_path / 'run'}", *SHORT]
    for native, resume in (("bf16", False), ("fp32", True)):  # begun on one machine, gone on with on another
        monkeypatch.setattr("d2v.core.precision.native_precision", lambda device, native=native: native)
        code, shown, errors = d2v(*given, f"resume={str(resume).lower()}")
        assert (code, shown) == (0, "4 updates\n"), errors
        assert "  precision: bf16\n" in (tmp_path / "run/config.yaml").read_text()


@pytest.mark.parametrize("command", ["probe", "extract", "evaluate"])
def test_precision_auto_is_the_device_s_own(
    command: str, made: Path, tmp_path: Path, d2v: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = made / ("classifier" if command == "evaluate" else "run"), []

    def native(device: torch.device) -> str:
        asked.append(device.type)
        return "bf16"

    monkeypatch.setattr("d2v.core.precision.native_precision", native)
    out = tmp_path / ("features.npy" if command == "extract" else "report.json")
    options = ["probes=[knn]", "baselines=false"] if command == "probe" else []
    given = [command, f"model={model}", f"data.path={made / 'photos'}", "device=cpu", f"out={out}", *options]
    code, _, errors = d2v(*given, "precision=auto")
    assert code == 0, errors
    assert set(asked) == {"cpu"}


def test_python_is_the_same_as_the_command(made: Path, tmp_path: Path) -> None:
    settings = {"data.path": str(made / "photos"), "out": str(tmp_path / "run"), "device": "cpu"}
    numbers = {"train.max_steps": 4, "train.log_every": 2, "train.checkpoint_every": 2}
    assert pretrain("vision/small", settings | numbers, progress=False).step == 4
    ours, theirs = (load(folder).module.state_dict() for folder in (tmp_path / "run", made / "run"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
