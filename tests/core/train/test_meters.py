"""Metrics by modality, over ranks that may have seen different ones."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from d2v.core.model import Batch, StepOutput
from d2v.core.train import MemorySource, fit
from d2v.core.train.meters import Meters


def test_ranks_that_saw_different_metrics_report_the_same(tmp_path):
    script = Path(__file__).with_name("meters_worker.py")
    workers = [subprocess.Popen([sys.executable, script, str(rank), "2", tmp_path]) for rank in range(2)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    assert subprocess.run([sys.executable, script, "0", "1", tmp_path], check=False, timeout=100).returncode == 0
    first, second, alone = (json.loads((tmp_path / name).read_text()) for name in ("0-2", "1-2", "0-1"))
    assert first == second == alone
    everything = {"loss": 2.0, "cls": 2.0, "größe": 1.0, "image/loss": 2.0, "image/cls": 2.0}
    everything |= {"text/loss": 5.0, "text/größe": 1.0}
    assert first == [everything, {}, {"loss": 10 / 8, "cls": 2.0, "image/loss": 2.0, "image/cls": 2.0}]


def test_what_was_counted_is_kept():
    meters, other = Meters(), Meters()
    meters.add({"loss": (torch.tensor(6.0), 2)}, modality="image")
    other.load_state_dict(meters.state_dict())
    for one in (meters, other):
        one.add({"loss": (torch.tensor(1.0), 1)})
    assert meters.report() == other.report() == {"loss": 7 / 3, "image/loss": 3.0}
    assert meters.report() == {}


class Mean(nn.Module):
    """Its loss is the batch's mean, whatever the weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch, *, update):
        loss = batch.source.sum() + 0 * self.weight.sum()
        return StepOutput(loss_sum=loss, sample_size=batch.size, metrics={"seen": (batch.source.sum(), 1)})


def test_the_loop_logs_each_modality():
    batches = [
        Batch(source=torch.full((2, 1), value), modality=name)
        for value, name in ((1.0, "image"), (5.0, "text"), (9.0, None))
    ]
    logged = {}

    class Hook:
        def on_log(self, step, metrics):
            logged.update(metrics)

    model, data = Mean(), MemorySource(batches, seed=None)
    optimizer = torch.optim.SGD(model.parameters())
    fit(model, data, optimizer=optimizer, schedule=lambda n: 0.1, max_steps=1, accumulate=3, hooks=[Hook()])
    expected = {"loss": 5.0, "image/loss": 1.0, "text/loss": 5.0, "seen": 10.0, "image/seen": 2.0, "text/seen": 10.0}
    assert {name: value for name, value in logged.items() if name not in ("lr", "data_wait")} == expected
