"""A worker of test_loop: `python fit_worker.py RANK WORKERS FOLDER` trains and writes its weights."""

import sys

import torch
from torch import distributed as dist
from torch import nn

from d2v.core.model import Batch, StepOutput
from d2v.core.train import MemorySource, fit


class Toy(nn.Module):
    """Two weights, the second of which only the first sample reaches; counts differ by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.rare = nn.Parameter(torch.ones(3))

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        loss = (batch.source @ self.weight - 1).square().sum()
        first = batch.ids is not None and int(batch.ids[0]) == 0
        if first:
            loss = loss + (batch.source @ self.rare).square().sum()
        return StepOutput(loss_sum=loss, sample_size=2 if first else 1)


def main(rank: int, workers: int, folder: str) -> None:
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers)
    torch.manual_seed(0)
    batches = [Batch(source=torch.randn(1, 3), ids=torch.tensor([i])) for i in range(2)]
    model = Toy()
    fit(
        model,
        MemorySource(batches[rank::workers], seed=None),
        optimizer=torch.optim.SGD(model.parameters()),
        schedule=lambda n: 0.1,
        max_steps=3,
        accumulate=2 // workers,
    )
    torch.save(nn.utils.parameters_to_vector(model.parameters()).detach(), f"{folder}/{rank}-{workers}")
    if workers > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
