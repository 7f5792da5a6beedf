"""Parameter groups, and weight decays that are set before each step."""

import pytest
import torch
from torch import nn

from d2v.core.train import PublishedAdamW, parameter_groups, set_weight_decay


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
        ({"no_decay": ["cls_tokens"]}, "'cls_tokens'.*'cls_token'"),
        ({"decay": "all", "no_decay": ["cls_token"]}, "decay='all' "),
        ({"decay": "some"}, "decay='some'"),
        ({"weight_decay": -1.0}, "weight_decay=-1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        parameter_groups(Toy(), **{"weight_decay": 0.05, **options})


def test_nothing_trainable():
    with pytest.raises(ValueError, match=r"Linear .*trainable"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), weight_decay=0.05)


def test_the_two_kinds_stay_apart_without_a_decay() -> None:
    groups = parameter_groups(nn.Linear(3, 4), weight_decay=0.0)  # a schedule may set the decay later
    assert [len(group["params"]) for group in groups] == [1, 1]
