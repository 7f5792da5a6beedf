"""A worker of test_skipping: `python skipping_worker.py RANK WORKERS FOLDER` trains and writes what it skipped."""

import sys
from datetime import timedelta

import torch
from torch import distributed as dist
from torch import nn

from d2v.core.model import Batch, StepOutput
from d2v.core.train import MemorySource, RunFolder, Skipping, fit


class Line(nn.Module):
    """w x, whose loss rank 1 spoils in two updates."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.rank = rank

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        factor = {3: float("nan"), 23: 9.0}.get(update, 1.0) if self.rank else 1.0
        return StepOutput(loss_sum=(batch.source @ self.weight).square().sum() * factor, sample_size=batch.size)


class Skipped:
    """Numbers of the updates that changed no weight."""

    def __init__(self, model: Line) -> None:
        self.model, self.before, self.found = model, model.weight.detach().clone(), list[int]()

    def on_step_end(self, step: int) -> None:
        now = self.model.weight.detach().clone()
        if torch.equal(now, self.before):
            self.found.append(step)
        self.before = now


def main(rank: int, workers: int, folder: str) -> None:
    store = f"file://{folder}/store"
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=workers, timeout=wait)
    model = Line(rank)
    skipped = Skipped(model)
    run = RunFolder(f"{folder}/run", config="seed: 0\n", description={})
    fit(
        model,
        MemorySource([Batch(source=torch.ones(2, 3) * (1 + rank))], seed=None),
        optimizer=torch.optim.SGD(model.parameters()),
        schedule=lambda n: 1e-4,
        max_steps=26,
        run=run,
        skipping=Skipping(limit=2, spike_ratio=4.0, debug=True),
        hooks=[skipped],
    )
    run.close()
    torch.save({"weight": model.weight.detach(), "skipped": skipped.found}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
