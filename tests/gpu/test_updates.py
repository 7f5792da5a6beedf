"""Optimiser and teacher on a GPU: few kernels, and the numbers of the CPU."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from d2v.core import EMATeacher
from d2v.core.train import PublishedAdamW

pytestmark = pytest.mark.gpu


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(16, 16) for _ in range(60)))


def optimised(model: nn.Module, *, fused: bool, steps: int = 4) -> PublishedAdamW:
    optimizer = PublishedAdamW(model.parameters(), lr=1e-2, eps=1e-6, fused=fused)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator).to(p.device)
        optimizer.step()
    return optimizer


def launches(action) -> int:
    """Kernels that an action starts."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        action()
        torch.cuda.synchronize()
    return sum(event.count for event in found.key_averages() if event.device_type.name == "CUDA")


@pytest.mark.parametrize("fused", [True, False])
def test_the_optimiser_gives_what_it_gives_on_a_cpu(gpu: torch.device, fused: bool) -> None:
    here, there = layers(), layers().to(gpu)
    optimised(here, fused=False)
    optimised(there, fused=fused)
    for ours, theirs in zip(there.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_optimiser_and_the_teacher_take_few_kernels(gpu: torch.device) -> None:
    model = layers().to(gpu)
    optimizer, teacher = optimised(model, fused=True), EMATeacher(model, 0.9)
    teacher.update(model, 1)
    assert 0 < launches(optimizer.step) < len(list(model.parameters())) / 4
    assert 0 < launches(lambda: teacher.update(model, 2)) < len(list(model.parameters())) / 4


def test_the_teacher_gives_what_it_gives_on_a_cpu(gpu: torch.device) -> None:
    student = layers()
    teacher = EMATeacher(student, 0.9)
    student_there, teacher_there = copy.deepcopy(student).to(gpu), copy.deepcopy(teacher).to(gpu)
    with torch.no_grad():
        for p, q in zip(student.parameters(), student_there.parameters(), strict=True):
            p.add_(1.0)
            q.add_(1.0)
    teacher.update(student, 1)
    teacher_there.update(student_there, 1)
    for ours, theirs in zip(teacher_there.parameters(), teacher.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)


def test_a_state_moves_between_devices(gpu: torch.device) -> None:
    here = layers()
    state = optimised(here, fused=True).state_dict()
    there = copy.deepcopy(here).to(gpu)
    optimizer = PublishedAdamW(there.parameters(), lr=1e-2, eps=1e-6)
    optimizer.load_state_dict(copy.deepcopy(state))
    other = PublishedAdamW(here.parameters(), lr=1e-2, eps=1e-6)
    other.load_state_dict(state)
    for one in (optimizer, other):
        for p in one.param_groups[0]["params"]:
            p.grad = torch.full_like(p, 0.1)
        one.step()
    for ours, theirs in zip(there.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-6)
