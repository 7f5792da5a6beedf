"""Sinks of third-party trackers: first with modules that record their calls, then by the packages themselves."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from training import STEPS, At, Boom, boom, train

from d2v.core.files import ConfigError
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.core.registry import MissingExtraError
from d2v.core.train import MLflow, TensorBoard, WandB
from d2v.core.train.trackers import sinks_by_name

CONFIG = {"seed": 0, "train": {"max_steps": STEPS, "betas": [0.9, 0.98]}}


def cut(path, sink):
    """A run that breaks after the fifth update and goes on; the checkpoint is that of the third."""
    with pytest.raises(Boom):
        train(path, sinks=[sink()], hooks=[At(5, boom)])
    train(path, sinks=[sink()], hooks=[At(0, boom)])


@pytest.fixture
def installed(monkeypatch):
    """Puts a module in the place of a package."""

    def install(name, module):
        monkeypatch.setattr("d2v.core.train.trackers.find_spec", lambda asked: asked == name or None)
        monkeypatch.setitem(sys.modules, name, module)

    return install


def test_a_run_of_wandb_goes_on_as_the_same(tmp_path, installed):
    runs = []

    def init(**given):
        run = SimpleNamespace(id=given["id"] or "made", given=given, logged=[], ended=[])
        run.log = lambda metrics, *, step: run.logged.append((step, sorted(metrics)))
        run.finish = lambda *, exit_code: run.ended.append(exit_code)
        runs.append(run)
        return run

    module = ModuleType("wandb")
    module.init = init
    installed("wandb", module)
    cut(tmp_path / "run", lambda: WandB(tmp_path / "run", CONFIG, project="mine"))
    first, second = runs
    assert (first.given["id"], second.given["id"]) == (None, "made")
    assert [run.ended for run in runs] == [[1], [0]], "the first one failed"
    assert [[step for step, _ in run.logged] for run in runs] == [[2, 4], [4, 6, 8]]
    assert {"loss", "decay", "lr"} <= set(first.logged[0][1])
    assert second.given["config"] == CONFIG
    assert (second.given["project"], second.given["name"], second.given["resume"]) == ("mine", "run", "allow")


def test_a_run_of_mlflow_goes_on_as_the_same(tmp_path, installed):
    calls = []
    module = ModuleType("mlflow")

    def start_run(*, run_id, run_name, nested):
        calls.append(("start", run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "made"))

    module.start_run = start_run
    module.log_params = lambda values: calls.append(("params", values))
    module.log_metrics = lambda metrics, *, step, run_id: calls.append(("metrics", step, run_id))
    module.end_run = lambda status: calls.append(("end", status))
    installed("mlflow", module)
    cut(tmp_path / "run", lambda: MLflow(tmp_path / "run", CONFIG))
    assert calls == [
        ("start", None, "run"),
        ("params", {"seed": 0, "train.max_steps": STEPS, "train.betas": [0.9, 0.98]}),
        ("metrics", 2, "made"),
        ("metrics", 4, "made"),
        ("end", "FAILED"),
        ("start", "made", "run"),
        *(("metrics", step, "made") for step in (4, 6, 8)),
        ("end", "FINISHED"),
    ]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_without_the_package(name, tmp_path, monkeypatch):
    monkeypatch.setattr("d2v.core.train.trackers.find_spec", lambda asked: None)
    with pytest.raises(MissingExtraError, match=f"pip install {name}"):
        sinks_by_name((name,), tmp_path, CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", ["wnadb", ["wandb", "wandb"], 3, ["tensorboard", None], {"wandb": 1}])
def test_names_that_are_none(names):
    with pytest.raises(ConfigError, match=r"^train: sinks=.*mlflow"):
        read_recipe("vision/small", {"data.path": "digits", "out": "run", "train.sinks": names}, PretrainRecipe)


def test_tensorboard_is_taken_where_nothing_is_said(tmp_path, monkeypatch):
    assert sinks_by_name((), tmp_path, CONFIG) == []
    for there in (True, False):
        monkeypatch.setattr(TensorBoard, "available", lambda there=there: there)
        assert [type(sink) for sink in sinks_by_name(None, tmp_path, CONFIG)] == [TensorBoard] * there
    assert [type(sink) for sink in sinks_by_name(("tensorboard",), tmp_path, CONFIG)] == [TensorBoard]


def test_wandb_itself(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cut(tmp_path / "run", lambda: WandB(tmp_path / "run", CONFIG, project="mine"))
    known = (tmp_path / "run/wandb.id").read_text().strip()
    files = sorted((tmp_path / "run/wandb").glob(f"offline-run-*/run-{known}.wandb"))
    assert len(files) == 2, "two files of the same run"
    for file in files:
        content = file.read_bytes()
        for word in (b"target_var", b"loss", b"mine", b"max_steps"):
            assert word in content


def test_mlflow_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    mlflow = pytest.importorskip("mlflow")
    cut(tmp_path / "run", lambda: MLflow(tmp_path / "run", CONFIG))
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.info.run_id == (tmp_path / "run/mlflow.id").read_text().strip()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params == {"seed": "0", "train.max_steps": str(STEPS), "train.betas": "[0.9, 0.98]"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert {metric.step for metric in history} == {2, 4, 6, 8}
    assert len({metric.value for metric in history if metric.step == 4}) == 1, "what was sent twice is the same"
