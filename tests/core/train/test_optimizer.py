"""Parameter groups, and Adam and clipping as published."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from d2v.core.model import Batch, StepOutput
from d2v.core.train import MemorySource, PublishedAdamW, fit, parameter_groups, set_weight_decay
from d2v.core.train.stages import clip_gradients

CASE = json.loads((Path(__file__).parent / "data" / "adam.json").read_text())
OPTIONS = {"lr": CASE["lr"], "betas": tuple(CASE["betas"]), "eps": CASE["eps"], "weight_decay": CASE["weight_decay"]}


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.position = nn.Module()
        self.position.table = nn.Parameter(torch.zeros(1, 3, 4))
        self.position.rows = nn.Parameter(torch.zeros(3, 4))
        self.head_bias = nn.Parameter(torch.zeros(2, 4))
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Parameter(torch.zeros(4, 4), requires_grad=False)


def names(model: nn.Module, groups: list[dict]) -> dict[float, set[str]]:
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["weight_decay"]: {by_id[id(parameter)] for parameter in group["params"]} for group in groups}


def steps(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: list[list[float]]
) -> list[torch.Tensor]:
    seen = []
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        seen.append(parameter.detach().clone())
    return seen


@pytest.mark.parametrize("fused", [True, False])
def test_published_trajectory(fused):
    weight = nn.Parameter(torch.tensor(CASE["trajectory"][0]))
    optimizer = PublishedAdamW([weight], **OPTIONS, fused=fused)
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
    whole = nn.Parameter(torch.tensor(CASE["trajectory"][0]))
    expected = steps(PublishedAdamW([whole], **OPTIONS), whole, CASE["grads"])

    weight = nn.Parameter(torch.tensor(CASE["trajectory"][0]))
    first = PublishedAdamW([weight], **OPTIONS)
    steps(first, weight, CASE["grads"][:2])
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    second = PublishedAdamW([weight], **OPTIONS)
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert second.param_groups[0]["eps"] == CASE["eps"]
    for seen, other in zip(steps(second, weight, CASE["grads"][2:]), expected[2:], strict=True):
        assert torch.equal(seen, other)


def test_a_used_optimizer_forgets_its_count_when_it_loads():
    weight = nn.Parameter(torch.tensor(CASE["trajectory"][0]))
    optimizer = PublishedAdamW([weight], **OPTIONS)
    fresh = copy.deepcopy(optimizer.state_dict())
    expected = steps(optimizer, weight, CASE["grads"])
    optimizer.load_state_dict(fresh)
    with torch.no_grad():
        weight.copy_(torch.tensor(CASE["trajectory"][0]))
    for seen, other in zip(steps(optimizer, weight, CASE["grads"]), expected, strict=True):
        assert torch.equal(seen, other)


def test_a_copy_goes_on_alike():
    weight = nn.Parameter(torch.tensor(CASE["trajectory"][0]))
    optimizer = PublishedAdamW([weight], **OPTIONS)
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
    weight = nn.Parameter(torch.tensor(CASE["trajectory"][0]))
    optimizer = PublishedAdamW([weight], **OPTIONS)
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


class Formula:
    """The published update of a parameter of its own, in one memory layout, by the formula."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.p = weight.detach().double().contiguous()
        self.m, self.v, self.t = torch.zeros_like(self.p), torch.zeros_like(self.p), 0

    def step(self, g: torch.Tensor) -> torch.Tensor:
        lr, (b1, b2), eps, decay = (OPTIONS[name] for name in ("lr", "betas", "eps", "weight_decay"))
        self.t += 1
        self.m, self.v = b1 * self.m + (1 - b1) * g.double(), b2 * self.v + (1 - b2) * g.double() ** 2
        scale = lr * (1 - b2**self.t) ** 0.5 / (1 - b1**self.t)
        self.p = self.p * (1 - lr * decay) - scale * self.m / (self.v.sqrt() + eps)
        return self.p.float()


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


def test_matrices():
    model = Toy()
    groups = parameter_groups(model, weight_decay=0.05, no_decay=["cls_token", "position.t*"])
    assert names(model, groups) == {
        0.05: {"linear.weight", "position.rows"},
        0.0: {"cls_token", "position.table", "head_bias", "linear.bias", "norm.weight", "norm.bias", "scale"},
    }


def test_a_schedule_sets_the_groups_that_decay() -> None:
    optimizer = PublishedAdamW(parameter_groups(Toy(), weight_decay=0.05))
    for n, value in enumerate([0.1, 0.0, 0.3]):  # it may pass through 0
        set_weight_decay(optimizer, [0.1, 0.0, 0.3].__getitem__, n)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [value, 0.0]


def test_a_schedule_finds_groups_that_others_made() -> None:
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    groups = [
        {"params": [weight], "weight_decay": value} for weight, value in zip(weights, [0.1, 0.0, 0.2], strict=True)
    ]
    optimizer = torch.optim.AdamW([*groups[:2], groups[2] | {"decays": False}])
    for value in (0.0, 0.3):
        set_weight_decay(optimizer, lambda n, value=value: value, 0)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [value, 0.0, 0.2]


def test_a_schedule_needs_a_group_that_decays() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2))], weight_decay=0.0)
    with pytest.raises(ValueError, match="decays=True"):
        set_weight_decay(optimizer, lambda n: 0.1, 0)


def test_a_pattern_may_name_a_module():
    model = Toy()
    groups = names(model, parameter_groups(model, weight_decay=0.05, no_decay=["position"]))
    assert {"position.table", "position.rows"} <= groups[0.0]


def test_all():
    model = Toy()
    (group,) = parameter_groups(model, weight_decay=0.05, decay="all")
    assert len(group["params"]) == sum(parameter.requires_grad for parameter in model.parameters())
    assert group["weight_decay"] == 0.05


def test_tied_parameters_appear_once_and_under_any_name():
    model = nn.ModuleDict({"embed": nn.Linear(3, 3, bias=False), "head": nn.Linear(3, 3, bias=False)})
    model["head"].weight = model["embed"].weight
    groups = parameter_groups(model, weight_decay=0.05, no_decay=["head"])
    assert names(model, groups) == {0.0: {"embed.weight"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no_decay": ["cls_tokens"]}, "no part of the Toy matches 'cls_tokens'; did you mean 'cls_token'"),
        ({"decay": "all", "no_decay": ["cls_token"]}, "decay='all' spares nothing"),
        ({"decay": "some"}, "decay='some' must be"),
        ({"weight_decay": -1.0}, "weight_decay=-1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        parameter_groups(Toy(), **{"weight_decay": 0.05, **options})


def test_nothing_trainable():
    with pytest.raises(ValueError, match="Linear has no trainable parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), weight_decay=0.05)


def test_the_two_kinds_stay_apart_without_a_decay() -> None:
    groups = parameter_groups(nn.Linear(3, 4), weight_decay=0.0)  # a schedule may set the decay later
    assert [len(group["params"]) for group in groups] == [1, 1]


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
