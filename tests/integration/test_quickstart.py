"""`d2v quickstart`, short and on few images: its output files, whether its results equal the commands', bad input."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup
from commands import Run

from d2v.core import probe
from d2v.core.cli import main
from d2v.core.jobs.finetuning import recipe_for
from d2v.core.plots import style
from d2v.core.registry import MissingExtraError
from d2v.vision import quickstart
from d2v.vision.demo import budget, running, stages
from d2v.vision.demo.stages import Stages

pytest.importorskip("matplotlib")
STEPS, SEED = 20, 3
EACH, DRAWS, SHORT = 20, 2, {"train.max_steps": 20}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A number of images of each class in each split of the built-in set."""
    folder = tmp_path_factory.mktemp("quickstart") / "photos"
    assert main(["data", "export-images", "fashion-mnist", str(folder), "--per-class", str(EACH)]) == 0
    return folder


@contextmanager
def small(photos: Path) -> Iterator[None]:
    """The quickstart runs on these images, with few label draws and short fine-tunings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "DATA", str(photos))
        patch.setattr(stages, "DRAWS", DRAWS)
        patch.setattr(stages, "recipe_for", lambda name, given, model: recipe_for(name, given | SHORT, model))
        yield


@pytest.fixture
def on_few_images(photos: Path) -> Iterator[None]:
    """As `small`, for one test."""
    with small(photos):
        yield


@pytest.fixture(scope="module")
def out(photos: Path) -> Path:
    """What a small quickstart of twenty updates has made."""
    folder = photos.parent / "deep" / "out"
    with small(photos):
        assert main(["quickstart", "--out", str(folder), "--steps", str(STEPS), "--seed", str(SEED)]) == 0
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    """Its results."""
    content: dict[str, Any] = json.loads((out / "report.json").read_text())
    return content


def leaves(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    else:
        yield tree


def test_the_report_holds_every_figure(report: dict[str, Any]) -> None:
    assert set(report["probe"]) == {"mean", "grid"}
    for by_probe in report["probe"].values():
        assert set(by_probe) == {"knn", "linear", "linear_100"}
        for figures in by_probe.values():
            assert set(figures) == {"pixels", "untrained", "pretrained"}
    assert set(report["finetune_100"]) == {"scratch", "pretrained"}
    assert all(10 < figure < 100 for figure in [*leaves(report["probe"]), *leaves(report["finetune_100"])])
    assert (report["steps"], report["images_seen"], report["seed"]) == (STEPS, STEPS * 8, SEED)
    assert report["recipe"] == "vision/small"
    assert report["device"] in ("cpu", "cuda", "mps")
    assert report["seconds"] > sum(report["seconds_of"].values()) > 0
    assert report["samples"] == {"train": 10 * EACH, "test": 10 * EACH}
    assert set(report["std"]["finetune_100"]) == {"scratch", "pretrained"}


@pytest.mark.long
def test_the_command_on_the_whole_set(tmp_path: Path, d2v: Run) -> None:
    code, shown, errors = d2v("quickstart", "--out", tmp_path / "out", "--steps", STEPS)
    assert code == 0, errors
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["samples"] == {"train": 10_000, "test": 2_000}
    assert all(10 < figure < 100 for figure in [*leaves(found["probe"]), *leaves(found["finetune_100"])])
    assert shown.splitlines() == [
        found["verdict"],
        *(str(tmp_path / "out" / f"report.{end}") for end in ("html", "json")),
    ]


def test_its_figures_are_those_of_the_probe_command(photos: Path, out: Path, report: dict[str, Any]) -> None:
    settings = {"model": str(out / "run"), "data.path": str(photos), "weights": "teacher", "seed": SEED}
    settings |= {"probes": ["knn", "few"], "draws": DRAWS, "device": report["device"]}
    found = probe(settings, progress=False)
    columns = {"raw": "pixels", "untrained": "untrained", "pretrained": "pretrained"}
    names = {"knn": "knn", "few": "linear_100"}
    for case, accuracy in found.scores.items():
        for pooling in ["mean", "grid"] if case.features == "raw" else [case.pooling]:
            shown = report["probe"][pooling][names[case.probe]][columns[case.features]]
            assert shown == pytest.approx(accuracy.percent, abs=0.51), "a sample at the boundary may change sides"
    assert len(found.scores) == 10


def test_the_run_is_one_to_go_on_with(photos: Path, out: Path, report: dict[str, Any], d2v: Run) -> None:
    config = (out / "run" / "config.yaml").read_text()
    assert f"seed: {SEED}" in config
    assert f"max_steps: {STEPS}" in config
    code, _, errors = d2v("extract", f"model={out / 'run'}", f"data.path={photos}", f"out={out / 'f.safetensors'}")
    assert code == 0, errors
    assert report["precision"] in config


def test_the_page_shows_what_the_report_holds(out: Path, report: dict[str, Any]) -> None:
    page = (out / "report.html").read_text()
    for figure in [*leaves(report["probe"]), *leaves(report["finetune_100"])]:
        assert f"{figure:.1f}" in page
    words = " ".join(BeautifulSoup(page, "html.parser").get_text().split())
    assert f"d2v quickstart --out again --steps {STEPS} --seed {SEED}" in words
    # six images of each section: masks (with eight views), predictions, features, neighbours (five before, five after)
    assert page.count("data:image/png;base64,") == 6 * (1 + 8) + 6 * 4 + 6 * 3 + 6 * (1 + 5 + 5)
    assert page.count("<svg") >= 1
    assert report["verdict"] in words
    assert len(page) < 2_000_000


@pytest.mark.usefixtures("on_few_images")
def test_the_same_steps_and_seed_give_the_same_run(out: Path, report: dict[str, Any], tmp_path: Path) -> None:
    """The run is the part that is drawn; probes of the same features are compared above."""
    stages = Stages(tmp_path, seed=SEED, device="auto", progress=False)
    stages.pretrain(STEPS)
    first, second = (folder / "run" / "model" / "model.safetensors" for folder in (out, tmp_path))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.usefixtures("on_few_images")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0.001"], r"0\.001 minutes"),
        (["--minutes", "0"], "minutes=0"),
        (["--minutes", "nan"], "minutes=nan"),
        (["--minutes", "inf"], "minutes=inf"),
        (["--steps", "0"], "steps.*0"),
        (["--seed", "-1"], "seed.*-1"),
        (["--device", "toaster"], "device='toaster'"),
        (["--modality", "audio"], "audio"),
        (["--modality", "visoin"], "'visoin'.*'vision'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments: list[str], message: str, tmp_path: Path, d2v: Run) -> None:
    code, shown, errors = d2v("quickstart", "--out", tmp_path / "out", *arguments)
    assert code in (1, 2)
    assert shown == ""
    lines = [line for line in errors.splitlines() if not line.startswith("[")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("out", "message"), [("there", "already"), ("file", "already"), ("file/out", "created")])
def test_a_folder_that_is_there_or_cannot_be_made_is_refused(out: str, message: str, tmp_path: Path, d2v: Run) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("mine")
    code, _, errors = d2v("quickstart", "--out", tmp_path / out, "--steps", 5)
    assert (code, errors.count("\n")) == (1, 1)
    assert str(tmp_path / out) in errors
    assert message in errors
    assert (tmp_path / "file").read_text() == "mine"


def test_a_missing_extra_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"d2v\[plot\]"):
        quickstart(tmp_path / "out", steps=5)
    assert not (tmp_path / "out").exists()


def test_on_a_busy_machine_fewer_threads_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(running, "usable_processors", lambda: 8)
    monkeypatch.setattr(running, "others_running", lambda: 3)
    monkeypatch.setattr(running, "_run", lambda folder, **options: {})
    quickstart(tmp_path / "busy")
    assert used == [5, 8]
    assert "5 of 8 threads" in capsys.readouterr().err
    quickstart(tmp_path / "fixed", steps=10)
    assert used == [5, 8], "the same number of updates gives the same run"
    monkeypatch.setattr(running, "others_running", lambda: 0)
    quickstart(tmp_path / "idle")
    assert used == [5, 8, 8]


def test_minutes_and_steps_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="minutes or steps"):
        quickstart(tmp_path / "out", minutes=5, steps=5)


@pytest.mark.usefixtures("on_few_images")
def test_the_time_decides_the_number_of_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of 0.1 s, 30 s spent and 50 s to come: 220 s of five minutes remain."""
    chosen: list[int] = []
    monkeypatch.setattr(running, "seconds_per_update", lambda recipe, device: 0.1)
    monkeypatch.setattr(Stages, "baselines", lambda self: None)
    monkeypatch.setattr(Stages, "spent", lambda self: 30.0)
    monkeypatch.setattr(Stages, "to_come", lambda self: 50.0)
    monkeypatch.setattr(Stages, "pretrain", lambda self, steps: chosen.append(steps))
    monkeypatch.setattr(Stages, "report", lambda self: {})
    quickstart(tmp_path / "out", progress=False)
    assert chosen == [budget.updates_within(220.0, 0.1)]
    assert chosen[0] == pytest.approx(2200, rel=0.05)
    monkeypatch.setattr(running, "seconds_per_update", lambda recipe, device: 1.0)
    quickstart(tmp_path / "slow", progress=False)
    assert chosen[1] == 1000, "five minutes are a goal, not a limit"
    with pytest.raises(ValueError, match="minutes"):
        quickstart(tmp_path / "limited", minutes=5, progress=False)
