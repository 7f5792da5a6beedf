"""The Adam variant of the published runs."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from attrs import define
from torch import Tensor
from torch.optim import AdamW

# torch wraps the `step` of each optimiser class that is used, to call its step hooks. The subclass is wrapped too, so
# it must call the unwrapped step: otherwise hooks run twice if the process also uses a plain AdamW.
_bare_step: Callable[..., Any] = inspect.unwrap(AdamW.step)

_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})
_MOMENTS = ("exp_avg", "exp_avg_sq")


class PublishedAdamW(AdamW):
    """Adam with decoupled weight decay, as published: eps is added to the uncorrected sqrt(v).

    In update t of a parameter p with gradient g:
    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p = p (1 - lr weight_decay);
    p = p - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).
    This is `torch.optim.AdamW` with eps / sqrt(1 - b2^t) instead of eps, so AdamW's step is used, fused if the device
    supports it. t is AdamW's step count, so state dicts are interchangeable with AdamW. Each parameter has a separate
    t: updates without a gradient (a frozen parameter, a dropped layer) do not count.

    Args:
        params: parameters or groups, as for any optimiser (see `parameter_groups`).
        lr: learning rate; a schedule sets it before each step.
        betas: b1 and b2.
        eps: epsilon, added to the uncorrected sqrt(v) as published.
        weight_decay: weight decay of groups that do not set it.
        fused: whether to use the fused kernel for parameters that are dense in memory, on devices that support it.

    Raises:
        ValueError: if a value is out of range (from torch).

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
        # None: `step` decides, because parameters may be added, loaded or change their layout at any time.
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=None if fused else False)
        self._seen: dict[Tensor, _Seen] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Clear the cache of parameters; called by `load_state_dict` and by unpickling."""
        super().__setstate__(state)
        self._seen = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch declares overloads
        """Update all parameters that have a gradient.

        Args:
            closure: re-evaluates the model and returns the loss, as for any optimiser of torch.
        """
        loss = None
        if closure is not None:
            # The counts depend on the gradients, so AdamW cannot call the closure later.
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        subgroups = [subgroup for group in groups for subgroup in self._subgroups(group)]
        if subgroups:
            self.param_groups = subgroups
            try:
                _bare_step(self)
            finally:
                self.param_groups = groups
        return loss

    def _subgroups(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Split a group's parameters with a gradient by update count and kernel; usually into one group."""
        found: dict[tuple[int, bool | None], list[Tensor]] = {}
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            seen = self._seen.get(parameter) or self._cache(parameter)
            seen.updates += 1
            fused: bool | None = group["fused"]
            if fused is not False:
                plain = seen.contiguous and parameter.is_contiguous() and gradient.is_contiguous()
                # None: torch chooses the kernel.
                fused = True if plain or self._prepare_fused(parameter, gradient, seen) else None
            found.setdefault((seen.updates, fused), []).append(parameter)
        for (t, fused), parameters in found.items():
            eps = group["eps"] / math.sqrt(1 - group["betas"][1] ** t)
            yield {**group, "params": parameters, "eps": eps, "fused": fused}

    def _cache(self, parameter: Tensor) -> "_Seen":
        """Cache the update count of a parameter that was created or loaded since the last step."""
        state = self.state.get(parameter)
        # AdamW counts on the device. Read the count once, then count here, without waiting for the device.
        self._seen[parameter] = seen = _Seen(int(state["step"]) if state else 0)
        return seen

    def _prepare_fused(self, parameter: Tensor, gradient: Tensor, seen: "_Seen") -> bool:
        """Whether the fused kernel can update a parameter; converts gradient and state to the layout that it needs.

        The kernel treats a parameter, its gradient and its moments as contiguous memory. On a CPU it ignores strides
        and would overwrite the neighbours of a slice. CUDA and MPS refuse different strides.
        """
        seen.contiguous = False
        if parameter.device.type not in _FUSED_DEVICES or not parameter.is_floating_point():
            return False
        if gradient.layout != torch.strided or not _dense(parameter):
            return False
        if not _same_layout(gradient, parameter):
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        state = self.state.get(parameter)
        if state:
            for name in _MOMENTS:
                if not _same_layout(state[name], parameter):  # loaded, or the parameter's layout changed
                    state[name] = torch.empty_like(parameter).copy_(state[name])
            # AdamW counts on the CPU if it is not fused.
            state["step"] = state["step"].to(parameter.device, torch.float32)
        seen.contiguous = parameter.is_contiguous()
        return True


@define(eq=False)
class _Seen:
    """Properties of a parameter, cached to avoid waiting for the device."""

    updates: int
    contiguous: bool = False  # whether its moments are contiguous


def _dense(tensor: Tensor) -> bool:
    """Whether the elements fill one block of memory without gaps or overlaps, in any order of the axes."""
    if tensor.is_contiguous():
        return True
    run = 1
    for stride, size in sorted(_axes(tensor)):
        if stride != run:
            return False
        run *= size
    return True


def _same_layout(tensor: Tensor, dense: Tensor) -> bool:
    """Whether a tensor has the memory layout of a dense tensor."""
    return (tensor.is_contiguous() and dense.is_contiguous()) or _axes(tensor) == _axes(dense)


def _axes(tensor: Tensor) -> list[tuple[int, int]]:
    """Return stride and size of each axis with more than one element; the strides of other axes are irrelevant."""
    return [(stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]
