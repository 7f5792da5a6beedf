"""Clipping: the published factor, and gradients below the limit as they are."""

import pytest
import torch
from torch import nn

from d2v.core.model import Batch, StepOutput
from d2v.core.train import MemorySource, fit


class Product(nn.Module):
    """Its gradient is the mean of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        del update
        return StepOutput(loss_sum=(batch.source @ self.weight).sum(), sample_size=batch.size)


@pytest.mark.parametrize(("clip", "factor"), [(0.0, 1.0), (10.0, 1.0), (5.1, 1.0), (5.0, 5 / (5 + 1e-6)), (0.5, 0.1)])
def test_a_gradient_is_clipped_to_its_norm(clip: float, factor: float) -> None:
    model = Product()
    data = MemorySource([Batch(source=torch.tensor([[3.0, 4.0], [3.0, 4.0]]))])
    fit(
        model,
        data,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        schedule=lambda n: 1.0,
        max_steps=1,
        clip=clip,
    )
    torch.testing.assert_close(model.weight.detach(), -factor * torch.tensor([3.0, 4.0]), rtol=3e-7, atol=0)


def test_parameters_are_those_of_the_model_when_it_thaws() -> None:
    """The loop looks for parameters once; a frozen one may get gradients later."""
    model = Product()
    model.weight.requires_grad_(False)
    data = MemorySource([Batch(source=torch.ones(1, 2))])

    class Thaw:
        def on_step_end(self, step: int) -> None:
            del step
            model.weight.requires_grad_(True)

    extra = nn.Parameter(torch.zeros(2))
    model.register_parameter("extra", extra)
    model.forward = lambda batch, *, update: StepOutput(  # type: ignore[method-assign]
        loss_sum=(batch.source @ (model.weight + extra)).sum(), sample_size=batch.size
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    fit(model, data, optimizer=optimizer, schedule=lambda n: 1.0, max_steps=2, hooks=[Thaw()])
    assert model.weight.tolist() == [-1.0, -1.0]
    assert extra.tolist() == [-2.0, -2.0]
