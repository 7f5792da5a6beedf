"""Adam and clipping as published."""

import copy

import pytest
import torch
from adam import CASE, OPTIONS, Formula
from torch import nn

from d2v.core.model import Batch, StepOutput
from d2v.core.train import MemorySource, PublishedAdamW, fit
from d2v.core.train.stages import clip_gradients


def steps(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: list[list[float]]
) -> list[torch.Tensor]:
    seen = []
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        seen.append(parameter.detach().clone())
    return seen


def published(**options) -> tuple[nn.Parameter, PublishedAdamW]:
    weight = nn.Parameter(torch.tensor(CASE["trajectory"][0]))
    return weight, PublishedAdamW([weight], **OPTIONS, **options)


@pytest.mark.parametrize("fused", [True, False])
def test_published_trajectory(fused):
    weight, optimizer = published(fused=fused)
    seen = steps(optimizer, weight, CASE["grads"])
    torch.testing.assert_close(torch.stack(seen), torch.tensor(CASE["trajectory"][1:]), rtol=1e-6, atol=1e-7)


def test_plain_adamw_is_something_else():
    weight = nn.Parameter(torch.tensor(CASE["trajectory"][0]))
    seen = steps(torch.optim.AdamW([weight], **OPTIONS), weight, CASE["grads"])
    assert (torch.stack(seen) - torch.tensor(CASE["trajectory"][1:])).abs().max() > 1e-4


def test_many_steps_equal_the_formula():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(7, dtype=torch.float64))
    p, m, v = weight.detach().clone(), torch.zeros(7), torch.zeros(7)
    lr, (b1, b2), eps, decay = 1e-2, (0.9, 0.98), 1e-3, 0.1
    optimizer = PublishedAdamW([weight], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    for t in range(1, 60):
        g = torch.randn(7, dtype=torch.float64) * 1e-3
        weight.grad = g
        optimizer.step()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = p * (1 - lr * decay) - lr * (1 - b2**t) ** 0.5 / (1 - b1**t) * m / (v.sqrt() + eps)
    torch.testing.assert_close(weight.detach(), p, rtol=1e-10, atol=1e-12)


def test_resuming_gives_identical_steps(tmp_path):
    whole, optimizer = published()
    expected = steps(optimizer, whole, CASE["grads"])
    weight, first = published()
    steps(first, weight, CASE["grads"][:2])
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    second = PublishedAdamW([weight], **OPTIONS)
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert second.param_groups[0]["eps"] == CASE["eps"]
    for seen, other in zip(steps(second, weight, CASE["grads"][2:]), expected[2:], strict=True):
        assert torch.equal(seen, other)


def test_a_used_optimizer_forgets_its_count_when_it_loads():
    weight, optimizer = published()
    fresh = copy.deepcopy(optimizer.state_dict())
    expected = steps(optimizer, weight, CASE["grads"])
    optimizer.load_state_dict(fresh)
    with torch.no_grad():
        weight.copy_(torch.tensor(CASE["trajectory"][0]))
    for seen, other in zip(steps(optimizer, weight, CASE["grads"]), expected, strict=True):
        assert torch.equal(seen, other)


def test_a_copy_goes_on_alike():
    weight, optimizer = published()
    steps(optimizer, weight, CASE["grads"][:2])
    other_weight, other = copy.deepcopy((weight, optimizer))
    expected = steps(optimizer, weight, CASE["grads"][2:])
    assert torch.equal(steps(other, other_weight, CASE["grads"][2:])[-1], expected[-1])


def test_groups_without_gradients_are_not_counted():
    late, early = (nn.Parameter(torch.tensor(CASE["trajectory"][0])) for _ in range(2))
    optimizer = PublishedAdamW([{"params": [early]}, {"params": [late]}], **OPTIONS)
    steps(optimizer, early, CASE["grads"][:3])
    early.grad = None
    seen = steps(optimizer, late, CASE["grads"])
    torch.testing.assert_close(torch.stack(seen), torch.tensor(CASE["trajectory"][1:]), rtol=1e-6, atol=1e-7)


def test_an_overflow_is_neither_applied_nor_counted():
    weight, optimizer = published()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    seen = []
    for gradient in ([float("inf")] * 5, *CASE["grads"]):
        scaler.scale(torch.zeros(()))  # makes the scale tensor, as scaling a loss does
        weight.grad = torch.tensor(gradient) * scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        seen.append(weight.detach().clone())
    torch.testing.assert_close(torch.stack(seen), torch.tensor(CASE["trajectory"]), rtol=1e-6, atol=1e-7)


def test_hooks_run_once_beside_a_plain_adamw():
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    weight = nn.Parameter(torch.zeros(5))
    optimizer = PublishedAdamW([weight], **OPTIONS)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    steps(optimizer, weight, CASE["grads"])
    assert len(calls) == len(CASE["grads"])


def test_closure_gives_the_loss_and_the_gradients():
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = PublishedAdamW([weight], lr=0.1, weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 1.0
    assert weight.item() < 1.0


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of parameters that the fused kernel is called with."""
    seen, fused = [], torch._fused_adamw_

    def counting(parameters, *rest, **options):
        seen.append(len(parameters))
        return fused(parameters, *rest, **options)

    monkeypatch.setattr(torch, "_fused_adamw_", counting)
    return seen


def test_small_parameters_share_one_kernel(kernels):
    parameters = [nn.Parameter(torch.zeros(4, 4)) for _ in range(152)]
    optimizer = PublishedAdamW(iter(parameters))
    for parameter in parameters:
        parameter.grad = torch.ones(4, 4)
    for _ in range(2):
        optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step()
    assert kernels == [152, 152, 152]


def test_no_kernel_where_none_is_wanted(kernels):
    linear = nn.Linear(2, 2)
    optimizer = PublishedAdamW(linear.named_parameters(), fused=False)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    linear(torch.ones(2)).sum().backward()
    optimizer.step()
    assert kernels == []


def test_neighbours_of_a_slice_stay(kernels):
    whole = torch.randn(4, 3)
    before = whole.clone()
    weight = nn.Parameter(whole[:, :1])
    optimizer = PublishedAdamW([weight], **OPTIONS)
    weight.grad = torch.ones(4, 1)
    optimizer.step()
    assert kernels == []
    assert torch.equal(whole[:, 1:], before[:, 1:])
    assert (whole[:, :1] != before[:, :1]).all()


@pytest.mark.parametrize("fused", [True, False])
def test_thawed_parameters_count_their_own_steps(fused, kernels):
    torch.manual_seed(0)
    early, late = (nn.Parameter(torch.randn(5)) for _ in range(2))
    formulas = {early: Formula(early), late: Formula(late)}
    optimizer = PublishedAdamW([early, late], **OPTIONS, fused=fused)

    def update(*parameters):
        optimizer.zero_grad()
        for parameter in parameters:
            parameter.grad = torch.randn(5)
            expected = formulas[parameter].step(parameter.grad)
            formulas[parameter].p = expected.double()
        optimizer.step()
        for parameter in parameters:
            torch.testing.assert_close(parameter.detach(), formulas[parameter].p.float(), rtol=1e-5, atol=1e-6)

    update(early)
    update(early)
    update(early, late)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    update(early, late)
    assert kernels == ([1, 1, 1, 1, 1, 1] if fused else [])


def test_counts_are_read_once_after_loading(monkeypatch):
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = PublishedAdamW(parameters, **OPTIONS)

    def step():
        for parameter in parameters:
            parameter.grad = torch.ones(2)
        optimizer.step()

    step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    reads, read = [], torch.Tensor.__int__
    monkeypatch.setattr(torch.Tensor, "__int__", lambda self: reads.append(1) or read(self))
    step()
    step()
    assert len(reads) == 3


@pytest.mark.parametrize(
    ("half", "norm", "factor"),
    [
        (False, 5.0, 2.5 / (5 + 1e-6)),
        (True, 5.0, 0.5),
        (False, 2.5, 2.5 / (2.5 + 1e-6)),  # at the limit the epsilon shrinks it already
        (True, 2.5, 1.0),
        (False, 2.0, 1.0),
        (True, 2.0, 1.0),
        (False, 0.0, 1.0),
        (True, 0.0, 1.0),
    ],
)
def test_published_clipping(half, norm, factor):
    gradient = torch.tensor([0.6, 0.8], dtype=torch.float64) * norm
    expected = gradient * factor
    clip_gradients([gradient], torch.tensor(norm, dtype=torch.float64), 2.5, half=half)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


class Pull(nn.Module):
    """Its weight's gradient is (3, 4) e-6, whatever the weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, batch, *, update):
        return StepOutput(loss_sum=(self.weight * torch.tensor([6e-6, 8e-6])).sum(), sample_size=2)


# The norm is 5e-6: by hand, 1e-6 / (5e-6 + 1e-6) = 1/6 and 1e-6 / 5e-6 = 1/5 of it.
@pytest.mark.parametrize(("precision", "factor"), [("fp32", 1 / 6), ("bf16", 1 / 6), ("fp16", 1 / 5)])
def test_fit_clips_as_published(precision, factor):
    model, data = Pull(), MemorySource([Batch(source=torch.zeros(1, 1))])
    optimizer = torch.optim.SGD(model.parameters())
    fit(model, data, optimizer=optimizer, schedule=lambda n: 1.0, max_steps=1, clip=1e-6, precision=precision)
    torch.testing.assert_close(model.weight.data, torch.tensor([-3e-6, -4e-6]) * factor, rtol=1e-5, atol=0)
