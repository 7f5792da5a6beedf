"""The teacher: an exponential moving average of a module or of a part of it.

It works for any `nn.Module` and does not depend on masks, modalities or losses.
"""

import copy as copying
from collections.abc import Callable, Iterable, Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from d2v.core.patterns import matching
from d2v.core.teacher.schedule import EMASchedule
from d2v.core.validators import check, must
from d2v.core.wrappers import local_part, named_parts, unwrapped


class EMATeacher(nn.Module):
    """Moving average of a student in float32, always in eval mode, without gradients (data2vec, section 3.3).

    After the n-th optimiser step: teacher = decay * teacher + (1 - decay) * student with decay = schedule(n). Trainable
    parameters of the student are averaged. Its buffers, frozen parameters and the modules named by `copy` are copied. A
    decay of 1 leaves the teacher unchanged. The average is one foreach operation on local shards, so it works with
    sharded parameters. The teacher keeps no reference to the student. It copies the module inside wrappers
    (torch.compile, DDP, DataParallel), and the student may be wrapped before or after the teacher is made.

    Args:
        student: module to average; the teacher starts as a copy of it.
        schedule: function from n to the decay, usually an `EMASchedule`; or a constant decay in [0, 1] (a Python or
            NumPy number, or a tensor with one element).
        leave_out: patterns of modules or parameters that the teacher does not have; they become None.
        copy: patterns of modules or parameters that are copied instead of averaged.

    A pattern is a dotted name. Each component may contain wildcards; "*" matches within one component:
    "adapters.*.front".

    Raises:
        ValueError: if a pattern matches nothing, or the schedule is neither a function nor a number in [0, 1].

    >>> student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> teacher = EMATeacher(student, 0.5, leave_out=["1"])
    >>> before = teacher.module[0].bias.clone()
    >>> _ = student[0].bias.data.add_(1.0)
    >>> teacher.update(student, 1)
    >>> torch.allclose(teacher.module[0].bias, before + 0.5), teacher.module[1]
    (True, None)
    """

    module: nn.Module

    def __init__(
        self,
        student: nn.Module,
        schedule: Callable[[int], float] | float | Tensor,
        *,
        leave_out: Iterable[str] = (),
        copy: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.schedule = _as_schedule(schedule)
        parts: dict[str, object] = dict(named_parts(student))
        parts |= {name: tensor for name, tensor in _named(student).items() if isinstance(tensor, nn.Parameter)}
        # deepcopy looks up objects in its memo first. The memo maps left-out parts to None, and wrappers to the copy of
        # the module inside. Children come before the wrappers around their parents.
        copies: dict[int, object] = {id(parts[name]): None for name in matching(leave_out, parts, of="the student")}
        for part in reversed(list(student.modules())):
            if (inside := unwrapped(part)) is not part:
                copies[id(part)] = copying.deepcopy(inside, copies)
        self.module = copying.deepcopy(student, copies).float().requires_grad_(False).eval()
        self._copied = tuple(matching(copy, parts, of="the student"))
        self.eval()

    def train(self, mode: bool = True) -> "EMATeacher":
        """Stay in eval mode, even if the surrounding model is set to training."""
        return super().train(False)

    def forward(self, *args: object, **kwargs: object) -> object:
        """Call the averaged module."""
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, student: nn.Module, n: int) -> None:
        """Update the teacher from the student.

        Args:
            student: the module that the teacher was made from.
            n: number of finished updates, at least 1; call right after the optimiser step.

        Raises:
            ValueError: if n < 1, the schedule gives a decay outside [0, 1], or a tensor of the teacher is missing in
                the student or has another shape there; the teacher is unchanged then.
        """
        if n < 1:
            raise ValueError(f"n={n}: the teacher is updated after an optimiser step, so n starts at 1")
        decay = self.schedule(n)
        if not 0 <= decay <= 1:
            raise ValueError(f"the schedule gives decay {decay} at update {n}; it must be in [0, 1]")
        if decay == 1:
            return
        averaged, copied = self._pairs(student)
        if averaged:
            own, other = zip(*averaged, strict=True)
            torch._foreach_lerp_(own, other, 1 - decay)
        if copied:
            own, other = zip(*copied, strict=True)
            torch._foreach_copy_(own, other)

    def _pairs(self, student: nn.Module) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        averaged: list[tuple[Tensor, Tensor]] = []
        copied: list[tuple[Tensor, Tensor]] = []
        others, seen = _named(student), set[int]()
        for name, own in _named(self.module).items():
            if id(own) in seen:  # tied parameters are averaged once
                continue
            seen.add(id(own))
            other = _find(others, name, own)
            pair = (local_part(own), local_part(other).to(own.dtype))
            keep = other.requires_grad and not any(_below(name, part) for part in self._copied)
            (averaged if keep else copied).append(pair)
        return averaged, copied


def _as_schedule(schedule: Callable[[int], float] | float | Tensor) -> Callable[[int], float]:
    if isinstance(schedule, Tensor) and schedule.numel() == 1:
        schedule = schedule.item()
    if callable(schedule):
        return schedule
    check(
        must(
            lambda decay: isinstance(decay, Real) and not isinstance(decay, bool) and 0 <= float(decay) <= 1,
            "a decay in [0, 1], or a function from the number of updates to the decay",
        ),
        schedule=schedule,
    )
    return EMASchedule(float(schedule))


def _named(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {
        f"{part}.{name}" if part else name: tensor
        for part, one in named_parts(module)
        for tensors in (one._parameters, one._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    }


def _find(tensors: Mapping[str, Tensor], name: str, own: Tensor) -> Tensor:
    other = tensors.get(name)
    if other is None:
        raise ValueError(
            f"the student has no {name!r}, which the teacher averages; was it changed after the teacher was made?"
        )
    # Compare shards too: a teacher with a different sharding would be broadcast silently.
    if other.shape != own.shape or local_part(other).shape != local_part(own).shape:
        raise ValueError(
            f"{name!r} has shape {tuple(other.shape)} in the student and {tuple(own.shape)} in the teacher; was the "
            "student changed after the teacher was made?"
        )
    return other


def _below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
