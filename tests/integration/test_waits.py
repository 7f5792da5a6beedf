"""An update waits for the device once; `benchmarks/waits.py` counts."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from d2v.core.train import ranks

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from waits import CASES, SIMULATED, Simulation, waits_of

PRETRAINING = [name for name in CASES if "CTC" not in name]


@pytest.mark.parametrize("name", PRETRAINING)
def test_an_update_waits_once_for_the_norm_of_the_gradients(name: str) -> None:
    (place,) = waits_of(name, SIMULATED)
    assert place.startswith("d2v/core/train/stages.py:")


def test_the_loss_of_ctc_waits_once_more_for_each_micro_batch() -> None:
    *losses, norm = waits_of("audio/base, CTC", SIMULATED)
    assert len(losses) == 2, "torch copies the lengths to the device inside"
    assert all(place.startswith("d2v/audio/tasks/ctc_model.py:") for place in losses)
    assert norm.startswith("d2v/core/train/stages.py:")


def test_masks_drawn_in_the_step_would_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("d2v.core.model.Data2Vec.prepared")
    places = waits_of("vision/base, 2.0", SIMULATED)
    assert sum(place.startswith("d2v/core/masks/") for place in places) == 22  # 11 for each micro-batch


@pytest.mark.parametrize(("backends", "waiting"), [("cpu:gloo,cuda:nccl", False), ("cuda:nccl", True)])
def test_counts_are_summed_on_the_cpu_if_the_ranks_can(
    monkeypatch: pytest.MonkeyPatch, backends: str, waiting: bool
) -> None:
    monkeypatch.setattr(ranks, "world", lambda: (0, 2))
    monkeypatch.setattr(ranks.dist, "get_backend_config", lambda: backends)
    monkeypatch.setattr(ranks.dist, "all_reduce", lambda total: total.mul_(2))
    with Simulation() as device:
        assert ranks.sum_over_ranks([3, 1], SIMULATED) == [6, 2]
    assert bool(device.waits) == waiting


WAITING: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x.sum()),
    "if": lambda x: bool((x > 0).any()),
    "tolist": lambda x: x.tolist(),
    "equal": lambda x: torch.equal(x, x),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "masked_select": lambda x: x.masked_select(x > 0),
    "boolean index": lambda x: x[x > 0],
    "boolean assignment": lambda x: x.__setitem__(x > 0, torch.zeros(1, device=SIMULATED)),
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: x.repeat_interleave(
        torch.ones(3, dtype=torch.long).to(SIMULATED, non_blocking=True)
    ),
    "copy to the CPU": lambda x: x.to("cpu"),
    "copy into the CPU": lambda x: torch.empty(3).copy_(x),
    "copy to the device": lambda x: torch.ones(3).to(SIMULATED),
    "copy into the device": lambda x: x.copy_(torch.ones(3)),
    "constant": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "index from the CPU": lambda x: x[torch.tensor([0, 1])],
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: (x * 2 + 1).sum().sqrt(),
    "in place": lambda x: x.add_(1).clamp_(max=2),
    "where of three": lambda x: torch.where(x > 0, x, 0),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0.0),
    "index": lambda x: x[torch.arange(2, device=x.device)],
    "slices": lambda x: x[1:].view(1, 2).expand(3, 2),
    "asynchronous copy": lambda x: torch.ones(3).to(SIMULATED, non_blocking=True),
    "numbers on the CPU": lambda x: torch.ones(3).nonzero().shape[0] * x,
    "foreach": lambda x: torch._foreach_mul_([x, x], 2.0),
}


def waits(act: Callable[[Tensor], object]) -> int:
    with Simulation() as device:
        act(torch.ones(3).to(SIMULATED, non_blocking=True))
    return len(device.waits)


@pytest.mark.parametrize("name", WAITING)
def test_waits_are_seen(name: str) -> None:
    assert waits(WAITING[name]) == 1


@pytest.mark.parametrize("name", FREE)
def test_nothing_else_is(name: str) -> None:
    assert waits(FREE[name]) == 0


def test_tensors_of_two_devices_are_refused() -> None:
    with pytest.raises(RuntimeError, match="two devices"):
        waits(lambda x: x + torch.ones(3))
