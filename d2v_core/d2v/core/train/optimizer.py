"""The Adam of the published runs, which knows nothing of data2vec."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from attrs import define
from torch import Tensor
from torch.optim import AdamW

# torch wraps the `step` of each optimiser class that is used with the calls of its step hooks. Ours is wrapped too, so
# it calls the bare one; else the hooks would run twice wherever a plain AdamW lives in the same process.
_bare_step: Callable[..., Any] = inspect.unwrap(AdamW.step)

_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})
_MOMENTS = ("exp_avg", "exp_avg_sq")


class PublishedAdamW(AdamW):
    """Adam with decoupled weight decay as published: eps is added to the uncorrected sqrt(v).

    In update t of a parameter p with gradient g:
    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p = p (1 - lr weight_decay);
    p = p - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).
    That is `torch.optim.AdamW` with eps / sqrt(1 - b2^t) in place of eps, so the step is AdamW's own, fused where the
    device offers it. t is AdamW's own count too, so the state of either loads into the other. Each parameter has its
    own t: updates in which it has no gradient (it was frozen, or its layer dropped) do not count.

    Args:
        params: parameters or groups, as any optimiser takes them (see `parameter_groups`).
        lr: rate, set before each step by a schedule.
        betas: b1 and b2.
        eps: as published, on the uncorrected sqrt(v).
        weight_decay: of groups that do not bring their own.
        fused: one kernel for all parameters whose device offers it and that have no gaps in memory; False = never.

    Raises:
        ValueError: if a value is out of its range (from torch).

    >>> weight = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = PublishedAdamW([weight], lr=0.1, betas=(0.9, 0.98), eps=1.0, weight_decay=0.0)
    >>> weight.grad = torch.tensor([2.0])
    >>> optimizer.step()
    >>> round(weight.item(), 4)  # 1 - 0.1 * sqrt(0.02) / 0.1 * 0.2 / (sqrt(0.02 * 4) + 1)
    0.978
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        fused: bool = True,
    ) -> None:
        # None: `step` decides. Parameters may be added, loaded or laid out anew at any time.
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=None if fused else False)
        self._seen: dict[Tensor, _Seen] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Forget what was known: `load_state_dict` and unpickling come here."""
        super().__setstate__(state)
        self._seen = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch declares overloads
        """Update all parameters that have a gradient.

        Args:
            closure: evaluates the model anew and returns the loss, as for any optimiser of torch.
        """
        loss = None
        if closure is not None:
            # The counts ask for the gradients, so the closure cannot be left to AdamW.
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        portions = [portion for group in groups for portion in self._portions(group)]
        if portions:
            self.param_groups = portions
            try:
                _bare_step(self)
            finally:
                self.param_groups = groups
        return loss

    def _portions(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The group's parameters with a gradient as groups of one count and one kind of kernel; usually one."""
        found: dict[tuple[int, bool | None], list[Tensor]] = {}
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            seen = self._seen.get(parameter) or self._look_at(parameter)
            seen.updates += 1
            fused: bool | None = group["fused"]
            if fused is not False:
                plain = seen.contiguous and parameter.is_contiguous() and gradient.is_contiguous()
                # None leaves the kernel to torch.
                fused = True if plain or self._made_ready(parameter, gradient, seen) else None
            found.setdefault((seen.updates, fused), []).append(parameter)
        for (t, fused), parameters in found.items():
            eps = group["eps"] / math.sqrt(1 - group["betas"][1] ** t)
            yield {**group, "params": parameters, "eps": eps, "fused": fused}

    def _look_at(self, parameter: Tensor) -> "_Seen":
        """What is known of a parameter that was made or loaded since the last step."""
        state = self.state.get(parameter)
        # AdamW counts on the device: read it once, then count along, without waiting for it.
        self._seen[parameter] = seen = _Seen(int(state["step"]) if state else 0)
        return seen

    def _made_ready(self, parameter: Tensor, gradient: Tensor, seen: "_Seen") -> bool:
        """Whether the fused kernel may update a parameter; brings gradient and state to where it needs them.

        The kernel walks a parameter, its gradient and its moments as one run of memory each. On a CPU it does so
        whatever their strides are, and overwrites the neighbours of a slice; CUDA and MPS refuse strides that differ.
        """
        seen.contiguous = False
        if parameter.device.type not in _FUSED_DEVICES or not parameter.is_floating_point():
            return False
        if gradient.layout != torch.strided or not _dense(parameter):
            return False
        if not _alike(gradient, parameter):
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        state = self.state.get(parameter)
        if state:
            for name in _MOMENTS:
                if not _alike(state[name], parameter):  # loaded, or the parameter was laid out anew
                    state[name] = torch.empty_like(parameter).copy_(state[name])
            # AdamW counts on the CPU where it is not fused.
            state["step"] = state["step"].to(parameter.device, torch.float32)
        seen.contiguous = parameter.is_contiguous()
        return True


@define(eq=False)
class _Seen:
    """What the optimiser knows of a parameter without asking the device."""

    updates: int
    contiguous: bool = False  # whether its moments are


def _dense(tensor: Tensor) -> bool:
    """Whether the elements fill one run of memory, in any order of the axes, and none lies twice."""
    if tensor.is_contiguous():
        return True
    run = 1
    for stride, size in sorted(_axes(tensor)):
        if stride != run:
            return False
        run *= size
    return True


def _alike(tensor: Tensor, dense: Tensor) -> bool:
    """Whether the elements lie in the order of those of a dense tensor."""
    return (tensor.is_contiguous() and dense.is_contiguous()) or _axes(tensor) == _axes(dense)


def _axes(tensor: Tensor) -> list[tuple[int, int]]:
    """Stride and size of each axis that has more than one element: the stride of others means nothing."""
    return [(stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]
