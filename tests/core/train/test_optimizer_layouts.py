"""The published Adam on parameters, gradients and states of any memory layout."""

import pytest
import torch
from adam import OPTIONS, Formula
from torch import nn

from d2v.core.train import PublishedAdamW

LAYOUTS = {
    "slice": lambda: torch.randn(4, 3)[:, :1],
    "every other": lambda: torch.randn(4, 6)[:, ::2],
    "transposed": lambda: torch.randn(3, 4).T,
    "channels last": lambda: torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "contiguous": lambda: torch.randn(2, 3, 2, 2),
}


def gradient(like: torch.Tensor, layout: str) -> torch.Tensor:
    """Random, laid out as the parameter, in order, or in the opposite order."""
    values = torch.randn(like.shape)
    if layout == "reversed":
        return values.permute(*range(like.dim())[::-1]).contiguous().permute(*range(like.dim())[::-1])
    return values if layout == "contiguous" else torch.empty_like(like).copy_(values)


@pytest.mark.parametrize("layout", ["own", "contiguous", "reversed"])
@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("added", [False, True])
def test_any_layout_follows_the_formula(kind, layout, added):
    torch.manual_seed(0)
    weight, plain = nn.Parameter(LAYOUTS[kind]()), nn.Parameter(torch.zeros(2))
    formula = Formula(weight)
    optimizer = PublishedAdamW([plain] if added else [plain, weight], **OPTIONS)
    if added:
        optimizer.add_param_group({"params": [weight]})
    for _ in range(4):
        weight.grad, plain.grad = gradient(weight.detach(), layout), torch.ones(2)
        expected = formula.step(weight.grad)
        optimizer.step()
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_channels_last_gradients_converge_as_with_adamw():
    torch.manual_seed(0)
    source = torch.randn(8, 3, 8, 8).to(memory_format=torch.channels_last)
    target = nn.Conv2d(3, 5, 3)(source).detach()
    losses = []
    for make in (PublishedAdamW, torch.optim.AdamW):
        torch.manual_seed(1)
        convolution = nn.Conv2d(3, 5, 3)
        optimizer = make(convolution.parameters(), lr=1e-2, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0)
        for _ in range(60):
            loss = (convolution(source) - target).square().mean()
            # Not backward(), which brings gradients to their parameter's layout by itself.
            found = torch.autograd.grad(loss, list(convolution.parameters()))
            for parameter, one in zip(convolution.parameters(), found, strict=True):
                parameter.grad = one
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] < 0.05


@pytest.mark.parametrize("saved", [None, False, True])
def test_a_loaded_state_is_laid_out_as_its_parameter(saved):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(2, 3, 2, 2))
    formula = Formula(weight)
    first = PublishedAdamW([weight], **OPTIONS)
    weight.grad = torch.randn(2, 3, 2, 2)
    formula.step(weight.grad)
    first.step()
    state = first.state_dict()
    state["param_groups"][0]["fused"] = saved
    other = nn.Parameter(weight.detach().to(memory_format=torch.channels_last))
    second = PublishedAdamW([other], **OPTIONS)
    second.load_state_dict(state)
    for _ in range(2):
        other.grad = torch.randn(2, 3, 2, 2)
        expected = formula.step(other.grad)
        second.step()
        torch.testing.assert_close(other.detach(), expected, rtol=1e-5, atol=1e-6)


def test_a_model_may_change_its_layout_while_it_trains():
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 2, 2, bias=False)
    weight, formula = convolution.weight, Formula(convolution.weight)
    optimizer = PublishedAdamW([weight], **OPTIONS)
    for layout in (torch.contiguous_format, torch.channels_last, torch.contiguous_format):
        convolution.to(memory_format=layout)
        for _ in range(2):
            weight.grad = gradient(weight.detach(), "own")
            expected = formula.step(weight.grad)
            optimizer.step()
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)
