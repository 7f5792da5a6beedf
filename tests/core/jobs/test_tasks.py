"""Tasks of every kind of labels through `finetune`, `evaluate` and `predict`, none of which core knows."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from labelled import LABELS, SIZES, TASKS, ToyNumber, ToySymbols, installed, prepared

from d2v.core.cli import main
from d2v.core.data import DataError, FixedPlan, Request
from d2v.core.files import ConfigError, open_model
from d2v.core.jobs import evaluate, finetune, predict

KINDS = list(TASKS)
GOOD = {"classes": ("accuracy", 99), "multi-label": ("map", 99), "number": ("pearson", 90), "symbols": ("wer", 1)}


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    with installed():
        yield


@pytest.fixture(scope="module")
def tuned(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned model of each kind, below its kind."""
    folder = tmp_path_factory.mktemp("toys")
    for kind in KINDS:
        given = prepared(folder, kind)
        finetune(str(folder / "recipe.yaml"), {**given, "train.max_steps": 60}, progress=False)
    return folder


def use(tuned: Path, kind: str, **more: Any) -> dict[str, Any]:
    return {"model": str(tuned / kind), "data.path": kind, "device": "cpu", **more}


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_trained_described_and_read_back(kind: str, tuned: Path) -> None:
    stored = open_model(tuned / kind)
    assert stored.description.labels == LABELS[kind]
    assert isinstance(stored.description.task, TASKS[kind])
    written = json.loads((tuned / kind / "model/config.json").read_text())
    assert written["labels"]["kind"] == kind
    metric, bound = GOOD[kind]
    value = evaluate(use(tuned, kind), progress=False).metrics()[metric]
    assert value <= bound if kind == "symbols" else value >= bound


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_checkpoint_goes_by_the_direction_of_the_metric(kind: str, tuned: Path) -> None:
    lines = [json.loads(line) for line in (tuned / kind / "metrics.jsonl").read_text().splitlines()]
    name = f"val_{TASKS[kind].best}"
    found = [line[name] for line in lines if name in line]
    assert len(found) == 6
    best = min(found) if kind == "symbols" else max(found)
    state = torch.load(next((tuned / kind / "checkpoints").glob("step-60")) / "training.pt", weights_only=True)
    assert state["best"]["value"] == best


def test_several_splits_in_one_call(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    both = evaluate(use(tuned, "classes", split=["val", "test"], out=str(out)), progress=False)
    alone = {split: evaluate(use(tuned, "classes", split=split), progress=False) for split in ("val", "test")}
    assert list(both.splits) == ["val", "test"]
    for split, one in alone.items():
        assert both.splits[split].metrics() == one.metrics()
        assert {f"{split}.{name}": value for name, value in one.metrics().items()}.items() <= both.metrics().items()
    assert json.loads(out.read_text())["splits"]["val"] == alone["val"].metrics()
    given = [f"model={tuned / 'classes'}", "data.path=classes", "device=cpu"]
    assert main(["evaluate", *given, "split=[val,test]"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("val\n") < shown.index("test\n")
    assert sum(line.startswith("accuracy ") for line in shown.splitlines()) == 2


def test_one_split_reads_as_before(tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = evaluate(use(tuned, "classes", out=str(out)), progress=False)
    written = json.loads(out.read_text())
    assert written.pop("split") == "test"
    assert {"model", "data"} < written.keys()
    assert {name: written[name] for name in result.metrics()} == result.metrics()
    assert "confusion matrix" in result.tables()


@pytest.mark.parametrize("split", [[], ["val", "val"], 3, ["val", 3]])
def test_splits_that_are_none(split: object, tuned: Path) -> None:
    with pytest.raises(ConfigError, match="split"):
        evaluate(use(tuned, "classes", split=split), progress=False)


def test_a_split_that_is_missing_is_reported_before_anything_is_measured(
    tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2v.core.jobs.evaluation.scored", None)
    with pytest.raises(DataError, match="dev"):
        evaluate(use(tuned, "classes", split=["test", "dev"]), progress=False)


def test_predictions_are_in_the_order_of_the_data(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = predict(use(tuned, "symbols"), progress=False)
    in_order = FixedPlan.requests

    def turned(plan: FixedPlan, epoch: int, first: int = 0, skip: int = 0) -> list[Request]:
        return [attrs.evolve(one, ids=one.ids[::-1]) for one in in_order(plan, epoch, first, skip)][::-1]

    monkeypatch.setattr(FixedPlan, "requests", turned)
    assert predict(use(tuned, "symbols"), progress=False) == expected


def test_predictions_of_several_splits_follow_each_other(tuned: Path) -> None:
    rows = predict(use(tuned, "symbols", split=["test", "val"]), progress=False)
    assert [row["file"] for row in rows] == [f"{split}/{i}" for split in ("test", "val") for i in range(SIZES[split])]
    assert [row["text"] for row in rows[:2]] == ["A", "A A"]


def test_options_of_a_task_at_use(tuned: Path) -> None:
    assert {row["text"] for row in predict(use(tuned, "symbols", **{"task.longest": 1}), progress=False)} == {"A"}
    worse = evaluate(use(tuned, "symbols", **{"task.longest": 0}), progress=False)
    assert worse.metrics()["wer"] == 100
    stored = open_model(tuned / "symbols").description.task
    assert isinstance(stored, ToySymbols)
    assert stored.longest == 100


@pytest.mark.parametrize("call", [evaluate, predict])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task.scale": 2.0}, r"task\.scale=2\.0.*task\.longest"),
        ({"task.kind": "toy/number"}, r"task\.kind"),
        ({"task.longer": 3}, r"task\.longer.*'task\.longest'"),
    ],
)
def test_what_is_built_in_is_refused_at_use(call: Any, keys: dict[str, Any], message: str, tuned: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        call(use(tuned, "symbols", **keys), progress=False)


def test_a_pretrained_model_has_no_task(tuned: Path) -> None:
    for keys in ({}, {"task.longest": 1}):
        with pytest.raises(ConfigError, match="is pretrained"):
            evaluate({"model": str(tuned / "pretrained"), "data.path": "symbols", **keys}, progress=False)


def test_the_data_word_the_error_where_they_have_no_such_labels(tmp_path: Path) -> None:
    given = prepared(tmp_path, "number")
    with pytest.raises(DataError, match="toys with"):
        finetune(str(tmp_path / "recipe.yaml"), {**given, "data.path": "classes"}, progress=False)


def test_evaluation_wants_the_labels_of_the_model(tuned: Path) -> None:
    with pytest.raises(DataError, match="toys of number"):
        evaluate({**use(tuned, "classes"), "data.path": "number"}, progress=False)


def test_a_metric_that_is_undefined_at_first_does_not_end_a_run(tmp_path: Path) -> None:
    """All predictions are equal: a correlation with them is 0 / 0, which is never the best."""
    given = prepared(tmp_path, "number", scale=0.0)
    fitted = finetune(str(tmp_path / "recipe.yaml"), {**given, "optim.clip": 0, "train.max_steps": 10}, progress=False)
    assert fitted.best_step is None
    lines = (tmp_path / "number/metrics.jsonl").read_text().splitlines()
    assert math.isnan(json.loads(lines[-1])["val_pearson"])
    result = evaluate({"model": given["out"], "data.path": "number", "device": "cpu"}, progress=False)
    assert "pearson" not in result.metrics()
    assert "all predictions are equal" in result.undefined()["pearson"]
    assert isinstance(open_model(tmp_path / "number").description.task, ToyNumber)


def test_weights_that_are_not_finite_are_refused(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, module: torch.nn.Module, batch: Any, *, labels: object) -> torch.Tensor:
        return torch.full((batch.size, 3), math.nan)

    monkeypatch.setattr(TASKS["classes"], "outputs", broken)
    with pytest.raises(ValueError, match="not finite"):
        evaluate(use(tuned, "classes"), progress=False)


@pytest.fixture(scope="module")
def shared(tuned: Path) -> list[dict[str, Any]]:
    """What each of two processes has measured on the splits val and test, by kind."""
    worker = Path(__file__).parent / "evaluate_worker.py"
    command = [sys.executable, str(worker), str(Path(__file__).parents[2]), str(tuned)]
    children = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    try:
        assert [child.wait(timeout=100) for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
    return [json.loads((tuned / f"shared-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_measure_what_one_does(kind: str, tuned: Path, shared: list[dict[str, Any]]) -> None:
    """Seven and five samples in batches of two: neither can be shared out evenly."""
    alone = evaluate(use(tuned, kind, split=["val", "test"], batch_size=2), progress=False)
    for found in shared:
        assert found[kind]["metrics"] == pytest.approx(alone.metrics())
    assert shared[0][kind]["tables"].splitlines()[:2] == alone.tables().splitlines()[:2]
    assert shared[0] == shared[1]
    assert json.loads((tuned / f"{kind}.json").read_text())["splits"].keys() == {"val", "test"}


def test_values_of_an_option_are_compared(tuned: Path, shared: list[dict[str, Any]]) -> None:
    lengths = [0, 1, 100]
    alone = [
        evaluate(use(tuned, "symbols", split=["val"], **{"task.longest": length}), progress=False).metrics()
        for length in lengths
    ]
    found = evaluate(use(tuned, "symbols", split=["val", "test"], **{"task.longest": lengths}), progress=False)
    assert [one.metrics for one in found.tried] == [pytest.approx(one) for one in alone]
    assert [one.values for one in found.tried] == [{"task.longest": length} for length in lengths]
    # Longer predictions cannot be worse here; the first of equal ones is the best.
    rates = [one["wer"] for one in alone]
    assert [one.best for one in found.tried] == [number == rates.index(min(rates)) for number in range(3)]
    assert found.splits["val"].metrics() == pytest.approx(alone[rates.index(min(rates))])
    assert rates[0] == 100
    assert min(rates) < 100
    for process in shared:
        plain = [one.to_plain() for one in found.tried]
        assert [one.get("best") for one in process["sweep"]["tried"]] == [one.get("best") for one in plain]
        assert [one["wer"] for one in process["sweep"]["tried"]] == pytest.approx(rates)


def test_options_that_cannot_be_compared_are_refused(tuned: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.scale=2"):
        evaluate(use(tuned, "symbols", **{"task.scale": [1.0, 2.0]}), progress=False)
    with pytest.raises(ConfigError, match=r"task\.scale.*cannot be compared"):
        evaluate(use(tuned, "classes", **{"task.scale": [1.0]}), progress=False)
    with pytest.raises(ConfigError, match=r"task\.longest"):
        evaluate(use(tuned, "symbols", **{"task.longest": [1, "two"]}), progress=False)
