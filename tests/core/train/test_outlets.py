"""Sinks, progress, loss scale and rates, apart from the loop."""

import errno
import io
import json
import os
import sys

import pytest
import torch
from building import NEW
from torch import nn
from training import train

from d2v.core.train import (
    CosineSchedule,
    JsonLines,
    LayerDecay,
    LossScale,
    NonFiniteError,
    Progress,
    RunFolderError,
    TensorBoard,
    parameter_groups,
    set_rates,
)


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_sink_that_cannot_write_says_so(tmp_path, monkeypatch):
    sink = JsonLines(tmp_path / "metrics.jsonl")
    sink.write(1, {"loss": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunFolderError, match="No space left"):
            sink.write(2, {"loss": 1.0})
    sink.start(1)
    assert [json.loads(line)["step"] for line in sink.path.read_text().splitlines()] == [1]


def test_tensorboard_is_asked_for_only_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("d2v.core.train.sinks.find_spec", lambda name: None)
    assert not TensorBoard.available()
    TensorBoard(tmp_path).close()


def test_events_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"d2v\[tensorboard\]"):
        TensorBoard(tmp_path).start(0)
    assert not list(tmp_path.iterdir())


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.fixture
def tensorboard():
    # The tests of core run without the extra as well.
    pytest.importorskip("tensorboard")


@pytest.mark.usefixtures("tensorboard")
def test_events_come_back_and_a_restart_hides_later_ones(tmp_path):
    for start, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        sink = TensorBoard(tmp_path)
        sink.start(start)
        for step in steps:
            sink.write(step, {"loss": step / 4 + start, "decay": 0.5})
            # On the disk as soon as it is written.
            assert events(tmp_path)["loss"][-1] == (step, step / 4 + start)
        sink.close()
    assert events(tmp_path) == {
        "loss": [(2, 0.5), (4, 1.0), (6, 5.5), (8, 6.0)],
        "decay": [(2, 0.5), (4, 0.5), (6, 0.5), (8, 0.5)],
    }


@pytest.mark.usefixtures("tensorboard")
def test_fit_writes_events(tmp_path):
    train(tmp_path / "run", sinks=[TensorBoard(tmp_path / "events")])
    assert [step for step, _ in events(tmp_path / "events")["loss"]] == [2, 4, 6, 8]


@pytest.mark.usefixtures("tensorboard")
def test_events_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"events .*Not a directory"):
        TensorBoard(tmp_path / "file" / "events").start(0)
    sink = TensorBoard(tmp_path)
    sink.start(0)
    sink.write(1, {"loss": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr("tensorboard.compat.tensorflow_stub.io.gfile.GFile.flush", full)
        with pytest.raises(RunFolderError, match="No space left"):
            sink.write(2, {"loss": 1.0})
        sink.close()


METRICS = {"loss": 0.5, "target_var": 0.25, "pred_var": 0.125, "decay": 0.999, "data_wait": 0.01}


@pytest.mark.parametrize("columns", [12, 40, 80, 200])
def test_progress_on_a_terminal(columns, monkeypatch):
    stream = io.StringIO()
    stream.isatty, stream.fileno = lambda: True, lambda: 1
    monkeypatch.setattr("os.get_terminal_size", lambda descriptor: os.terminal_size((columns, 24)))
    progress = Progress(10, stream=stream)
    progress.start(0)
    progress.log(1, METRICS)
    progress.advance(2)
    progress.advance(10)
    progress.close()
    drawn = stream.getvalue().split("\r\x1b[K")[1:]
    assert len(drawn) == 2, "too often to be read, but for the last one"
    for line in drawn:
        assert len(line.rstrip("\n")) < columns, "a line that wraps would not be erased"
    assert drawn[-1].endswith("\n")
    if columns == 200:
        assert drawn[0].startswith("###-------------  step 2/10  ")
        for part in ("loss 0.5", "target var 0.25", "pred var 0.125", "decay 0.999", "waiting for data 1%"):
            assert part in drawn[0]
        assert drawn[1].startswith(f"{'#' * 16}  step 10/10")


def test_loss_scale_of_the_published_runs():
    scale = LossScale.published(workers=16, accumulate=2)
    assert (scale.value, scale.window, scale.minimum) == (128, 512, 1e-6)
    for _ in range(26):
        scale.overflow(step=7)
    with pytest.raises(NonFiniteError, match="update 8 "):
        scale.overflow(step=7)


def test_layer_decay_in_both_forms():
    model = NEW.student.build()
    blocks = model.blocks("toy")
    for first, front in (((), 1.0), (("adapters.toy.front",), 0.5**4)):
        groups = parameter_groups(model, weight_decay=0.1, layer_decay=LayerDecay(0.5, blocks=blocks, first=first))
        scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
        assert [{scale[id(p)] for p in block.parameters()} for block in blocks] == [{0.125}, {0.25}, {0.5}]
        assert scale[id(model.adapters["toy"].front.proj.weight)] == front


@pytest.mark.parametrize(
    ("schedule", "lowest"),
    [
        (CosineSchedule(1.0, total=10, min_lr=0.2, warmup=1), 0.2),  # published: the peak is scaled, the minimum is not
        (lambda n: 0.2 if n == 0 else 1.0, 0.1),
    ],
)
def test_rates_of_scaled_groups(schedule, lowest):
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr_scale": 0.5}])
    rates = []
    for n in (0, 1):
        set_rates(optimizer, schedule, n)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [lowest, 0.5]
