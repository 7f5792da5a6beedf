"""A worker of test_heartbeat: `python waiting_worker.py RANK PORT WHAT` trains with a rank 1 that hangs or ends."""

import os
import signal
import sys
import time

import torch
from torch import nn

from d2v.core.model import Batch, StepOutput
from d2v.core.train import MemorySource, connected, fit


class Line(nn.Module):
    """w x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        return StepOutput(loss_sum=(batch.source @ self.weight).square().sum(), sample_size=batch.size)


class Slow(MemorySource):
    """A source that is stuck before its fifth batch, which is read in the fourth update."""

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if number == 4:
                time.sleep(100)
            yield batch


class Stopped:
    """Stops or kills its process after an update; each takes longer than the time between two beats."""

    def __init__(self, signum: signal.Signals | None) -> None:
        self.signum = signum

    def on_step_end(self, step: int) -> None:
        time.sleep(0.3)
        if step == 4 and self.signum is not None:
            os.kill(os.getpid(), self.signum)


def main(rank: int, port: int, what: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    batches = [Batch(source=torch.ones(2, 3))]
    data = Slow(batches) if rank and what == "stuck" else MemorySource(batches)
    signums = {"stopped": signal.SIGSTOP, "killed": signal.SIGKILL}
    hooks = [Stopped(signums.get(what) if rank else None)]
    with connected():
        model = Line()
        optimizer = torch.optim.SGD(model.parameters())
        fit(model, data, optimizer=optimizer, schedule=lambda n: 1e-3, max_steps=9, timeout=3.0, hooks=hooks)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
