"""The loop: sum and count, exact resume, and what can go wrong on the way."""

import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from building import NEW, toy_batch
from torch import nn
from training import (
    STEPS,
    At,
    Boom,
    Breaking,
    breaking,
    lines,
    opened,
    same,
    started,
    toy_data,
    train,
    wait_for_line,
)

from d2v.core.model import Batch, StepOutput
from d2v.core.train import (
    Freeze,
    Interrupted,
    LossScale,
    MemorySource,
    NonFiniteError,
    RunFolder,
    RunFolderError,
    Validation,
    fit,
    parameter_groups,
)
from d2v.core.train import run_folder as folder_module


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    train(path)
    return path


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_signal_saves_and_going_on_is_exact(tmp_path, whole, signum, step):
    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "run", hooks=[At(step, lambda: signal.raise_signal(signum))])
    assert caught.value.signum == signum
    assert (tmp_path / "run" / "checkpoints" / f"step-{caught.value.step}").is_dir()
    train(tmp_path / "run")
    same(tmp_path / "run", whole)


def test_crash_inside_an_accumulation(tmp_path, whole):
    with pytest.raises(Boom):
        train(tmp_path / "run", data=Breaking(toy_data(), batch=12))  # the second micro-batch of the sixth update
    train(tmp_path / "run")
    same(tmp_path / "run", whole)


@pytest.mark.parametrize("place", ["write_files", "publish"])
@pytest.mark.parametrize("call", [1, 2])
def test_crash_in_a_checkpoint(tmp_path, whole, monkeypatch, place, call):
    calls = count(1)
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, place, breaking(getattr(folder_module, place), lambda *_: next(calls) == call))
        # As a killed process leaves it, without cleanup.
        patch.setattr(folder_module.shutil, "rmtree", lambda *args, **options: None)
        with pytest.raises(Boom):
            train(tmp_path / "run")
    train(tmp_path / "run")
    same(tmp_path / "run", whole)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


@pytest.mark.parametrize("after", [False, True])
def test_crash_between_a_line_and_its_checkpoint(tmp_path, whole, monkeypatch, after):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", breaking(RunFolder.save, lambda _, step, *rest: step == 6, after=after))
        with pytest.raises(Boom):
            train(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 8, "lo')  # a line that was cut off
    train(tmp_path / "run")
    same(tmp_path / "run", whole)


def test_kill(tmp_path, whole):
    process = started("training.train(path, hooks=[training.At(5, lambda: time.sleep(100))])", tmp_path / "run")
    wait_for_line(tmp_path / "run", 4, process)
    with pytest.raises(RunFolderError, match=f"process {process.pid};"):
        opened(tmp_path / "run")
    process.kill()
    process.wait()
    train(tmp_path / "run")
    same(tmp_path / "run", whole)


def test_workers_that_outlive_a_killed_run_do_not_hold_its_folder(tmp_path):
    program = (
        "import os, sys, time\n"
        "from d2v.core.train import RunFolder\n"
        "run = RunFolder(sys.argv[1], config='', description={})\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        opened(tmp_path / "run", config="").close()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


@pytest.mark.parametrize(("size", "accumulate"), [(2, 2), (1, 4)])
def test_sum_and_count(size, accumulate):
    source, weights = torch.randn(4, 8, 3), []
    for b, micro in ((4, 1), (size, accumulate)):
        torch.manual_seed(1)
        model = NEW.build()
        batches = [Batch(source=s, ids=i) for s, i in zip(source.split(b), torch.arange(4).split(b), strict=True)]
        optimizer = torch.optim.SGD(model.parameters())
        data = MemorySource(batches, seed=None)
        fit(model, data, optimizer=optimizer, schedule=lambda n: 0.1, max_steps=3, accumulate=micro)
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_two_ranks_update_as_one(tmp_path):
    script = Path(__file__).with_name("fit_worker.py")
    workers = [subprocess.Popen([sys.executable, script, str(rank), "2", tmp_path]) for rank in range(2)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    assert subprocess.run([sys.executable, script, "0", "1", tmp_path], check=False, timeout=100).returncode == 0
    first, second, alone = (torch.load(tmp_path / name, weights_only=True) for name in ("0-2", "1-2", "0-1"))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone)


class Line(nn.Module):
    """w x, whose loss may be replaced at an update."""

    def __init__(self, spoiled=None, value=float("nan")):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.spoiled, self.value = spoiled, value

    def forward(self, batch, *, update):
        loss = (batch.source @ self.weight).square().sum()
        return StepOutput(loss_sum=loss * (self.value if update == self.spoiled else 1), sample_size=batch.size)


def test_nan_names_the_step_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(NonFiniteError, match="update 5"):
        train(tmp_path / "run", model=Line(spoiled=4), monitor=None)
    run = opened(tmp_path / "run")
    assert run.steps() == [3]
    run.close()


def test_best_and_early_stop(tmp_path):
    values = iter([0.2, 0.5, 0.4, 0.3, 0.9])
    rule = Validation(run=lambda: {"accuracy": next(values)}, every=1, best="accuracy", higher=True, patience=2)
    train(tmp_path / "run", model=Line(), monitor=None, validation=rule)
    run = opened(tmp_path / "run")
    assert run.steps() == [2, 3, 4]
    run.close()
    best = (tmp_path / "run" / "checkpoints" / "step-2" / "model.safetensors").read_bytes()
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == best
    assert [line["accuracy"] for line in lines(tmp_path / "run")] == [0.2, 0.5, 0.4, 0.3]


def test_validation_starts_late(tmp_path):
    rule = Validation(run=lambda: {"accuracy": 0.5}, every=2, start=5)
    train(tmp_path / "run", model=Line(), monitor=None, validation=rule)
    assert [line["step"] for line in lines(tmp_path / "run") if "accuracy" in line] == [6, 8]


def test_a_scheduled_weight_decay_is_set_logged_and_resumed(tmp_path, whole):
    def schedule(n):
        seen.append(n)
        return 0.1 * n

    seen = []
    train(tmp_path / "run", weight_decay=schedule)
    assert set(seen) == set(range(STEPS))
    logged = [line["weight_decay"] for line in lines(tmp_path / "run")]
    assert logged == pytest.approx([0.1, 0.3, 0.5, 0.7])  # of the update that the line ends with
    state = torch.load(tmp_path / "run" / f"checkpoints/step-{STEPS}/training.pt", weights_only=True)
    assert [group["weight_decay"] for group in state["optimizer"]["param_groups"]] == [pytest.approx(0.7), 0.0]
    assert not any("weight_decay" in line for line in lines(whole))
    with pytest.raises(Interrupted):
        train(tmp_path / "two", weight_decay=schedule, hooks=[At(4, lambda: signal.raise_signal(signal.SIGINT))])
    train(tmp_path / "two", weight_decay=schedule)
    same(tmp_path / "two", tmp_path / "run")


def test_overflow_is_skipped_and_not_counted():
    class Once(Line):
        def forward(self, batch, *, update):
            out = super().forward(batch, update=update)
            seen.append(update)
            return StepOutput(loss_sum=out.loss_sum * (float("inf") if len(seen) == 2 else 1), sample_size=batch.size)

    seen, scale, model = [], LossScale(window=2), Once()
    optimizer = torch.optim.SGD(model.parameters())
    data = MemorySource([Batch(source=torch.ones(2, 3))])
    options = {"optimizer": optimizer, "schedule": lambda n: 1e-3, "max_steps": 3, "precision": "fp16"}
    fit(model, data, loss_scale=scale, **options)
    assert seen == [0, 1, 1, 2]
    assert scale.value == 128  # halved at the second, doubled after two more


def test_frozen_parts():
    torch.manual_seed(1)
    model = NEW.build()
    before = {name: p.clone() for name, p in model.student.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.1))
    freeze = Freeze(model, ["student"], updates=2)
    for steps, moved in ((2, False), (3, True)):
        data = MemorySource([toy_batch()])
        fit(model, data, optimizer=optimizer, schedule=lambda n: 1e-2, max_steps=steps, freeze=freeze)
        assert moved == any(not torch.equal(p, before[name]) for name, p in model.student.named_parameters())
