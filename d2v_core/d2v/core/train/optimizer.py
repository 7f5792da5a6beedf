"""What the optimiser is given, and the Adam of the published runs.

It knows nothing of data2vec: any `nn.Module` has parameters, and either piece works without the other.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from d2v.core.patterns import matching

# torch wraps the `step` of each optimiser class that is used with the calls of its step hooks. Ours is wrapped too, so
# it calls the bare one; else the hooks would run twice wherever a plain AdamW lives in the same process.
_bare_step: Callable[..., Any] = inspect.unwrap(AdamW.step)

_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    decay: Literal["matrices", "all"] = "matrices",
    no_decay: Iterable[str] = (),
    layer_decay: "LayerDecay | None" = None,
) -> list[dict[str, Any]]:
    """Groups for an optimiser: the trainable parameters with and without weight decay; empty groups are left out.

    Args:
        model: whose parameters to group; frozen ones are left out.
        weight_decay: of the parameters that decay.
        decay: "matrices" spares parameters with at most one axis, those whose name ends in "bias" and `no_decay`; "all"
            spares none, which is what the published runs did.
        no_decay: patterns of parameters, or of modules, with more axes that do not decay either (class tokens,
            positions). Each part of a dotted name may hold wildcards, and "*" stays within its part.
        layer_decay: lower rates for lower blocks.

    Returns:
        Dicts with `params` and `weight_decay`, and with `lr_scale` for `set_rates` where there is a layer decay.

    Raises:
        ValueError: if nothing is trainable, a pattern matches nothing, or patterns are given with decay="all".

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    >>> [(group["weight_decay"], len(group["params"])) for group in parameter_groups(model, weight_decay=0.05)]
    [(0.05, 1), (0.0, 3)]
    """
    patterns = tuple(no_decay)
    if decay not in ("matrices", "all"):
        raise ValueError(f"decay={decay!r} must be 'matrices' or 'all'")
    if decay == "all" and patterns:
        raise ValueError(f"decay='all' spares nothing, so no_decay={patterns} has no meaning; use decay='matrices'")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay={weight_decay} must be a finite number, at least 0")
    spared = _named(model, patterns)
    scales = {} if layer_decay is None else layer_decay.scales(model)
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = decay == "matrices" and (parameter.dim() <= 1 or name.endswith("bias") or id(parameter) in spared)
            groups.setdefault((scales.get(id(parameter), 1.0), plain), []).append(parameter)
    if not groups:
        raise ValueError(f"{type(model).__name__} has no trainable parameter")
    # Lowest rates first, and what decays before what does not: the order does not depend on the model's.
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return [
        {"params": parameters, "weight_decay": 0.0 if plain else weight_decay}
        | ({} if layer_decay is None else {"lr_scale": scale})
        for (scale, plain), parameters in ordered
    ]


@frozen
class LayerDecay:
    """Rates that fall from block to block towards the input, for fine-tuning.

    Block i of the n blocks (from 0) has factor decay^(n - i) on its rate. All else has factor 1, as in the published
    2.0 runs; what `first` names has decay^(n + 1), which is the form of BEiT and data2vec 1.0 for embeddings, tokens
    and positions.

    Args:
        decay: in (0, 1].
        blocks: in the order in which they run, `Backbone.blocks`.
        first: patterns of parameters or modules in front of the blocks.

    Raises:
        ValueError: if the decay is out of range or there is no block.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    >>> decay = LayerDecay(0.5, blocks=[model[0], model[1]])
    >>> [group["lr_scale"] for group in parameter_groups(model, weight_decay=0.1, decay="all", layer_decay=decay)]
    [0.25, 0.5, 1.0]
    """

    decay: float = field()
    blocks: Sequence[nn.Module] = field(kw_only=True)
    first: Sequence[str] = field(default=(), kw_only=True)

    @decay.validator
    def _check_decay(self, _: object, decay: float) -> None:
        if not 0 < decay <= 1:
            raise ValueError(f"layer decay {decay} must be above 0 and at most 1")

    @blocks.validator
    def _check_blocks(self, _: object, blocks: Sequence[nn.Module]) -> None:
        if not blocks:
            raise ValueError("layer decay needs blocks; give those of the encoder")

    def scales(self, model: nn.Module) -> dict[int, float]:
        """Factor by the id of a parameter; those that are missing have 1."""
        n = len(self.blocks)
        scales = dict.fromkeys(_named(model, tuple(self.first)), self.decay ** (n + 1))
        for i, block in enumerate(self.blocks):
            scales |= dict.fromkeys(map(id, block.parameters()), self.decay ** (n - i))
        return scales


def set_rates(optimizer: Optimizer, schedule: Callable[[int], float], n: int) -> None:
    """Set the rates of the update that follows `n` finished ones.

    A group's `lr_scale` is given to the schedule's `scaled` method where it has one (`CosineSchedule`: the peak is
    scaled, the lowest rate is not, as published); else it is a factor on the rate.

    Args:
        optimizer: whose groups.
        schedule: n to rate.
        n: finished updates.

    >>> weight = nn.Parameter(torch.zeros(1))
    >>> optimizer = AdamW([{"params": [weight], "lr_scale": 0.5}])
    >>> set_rates(optimizer, lambda n: 0.1, 0)
    >>> optimizer.param_groups[0]["lr"]
    0.05
    """
    scaled: Callable[[float], Callable[[int], float]] | None = getattr(schedule, "scaled", None)
    for group in optimizer.param_groups:
        factor = group.get("lr_scale", 1.0)
        group["lr"] = scaled(factor)(n) if scaled is not None and factor != 1 else factor * schedule(n)


def _named(model: nn.Module, patterns: tuple[str, ...]) -> set[int]:
    """Ids of the parameters that a pattern names, or that lie in a module that it names; a tied one under any name."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    modules = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    found = matching(patterns, [*parameters, *modules], of=f"the {type(model).__name__}")
    return {
        id(parameter)
        for name, parameter in parameters.items()
        if any(name == part or name.startswith(f"{part}.") for part in found)
    }


class PublishedAdamW(AdamW):
    """Adam with decoupled weight decay as published: eps is added to the uncorrected sqrt(v).

    In update t of a parameter p with gradient g:
    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p = p (1 - lr weight_decay);
    p = p - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).
    That is `torch.optim.AdamW` with eps / sqrt(1 - b2^t) in place of eps, so the step is AdamW's own, fused where the
    device offers it. t is AdamW's own count too, so the state of either loads into the other. Parameters of one group
    that have missed updates (no gradient: dropped layers) share the eps of those that have missed none.

    Args:
        params: parameters or groups, as any optimiser takes them (see `parameter_groups`).
        lr: rate, set before each step by a schedule.
        betas: b1 and b2.
        eps: as published, on the uncorrected sqrt(v).
        weight_decay: of groups that do not bring their own.
        fused: one kernel for all parameters; None = where every parameter's device offers it.

    Raises:
        ValueError: if a value is out of its range (from torch).

    >>> weight = nn.Parameter(torch.tensor([1.0]))
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
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)
        if fused is None and all(_offers_fused(p) for group in self.param_groups for p in group["params"]):
            for options in (self.defaults, *self.param_groups):
                options["fused"] = True
        self._finished: dict[int, int] = {}
        # Left to itself, a fused step decides on the device whether an overflow skips it, and the count here would go
        # on. A GradScaler that sees False does not call `step` at all then.
        self._step_supports_amp_scaling = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Forget the counts: `load_state_dict` and unpickling come here."""
        super().__setstate__(state)
        self._finished = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch declares overloads
        """Update all parameters that have a gradient.

        Args:
            closure: evaluates the model anew and returns the loss, as for any optimiser of torch.
        """
        loss = None
        if closure is not None:
            # The count below asks for the gradients, so the closure cannot be left to AdamW.
            with torch.enable_grad():
                loss = closure()
        published = [group["eps"] for group in self.param_groups]
        try:
            for index, group in enumerate(self.param_groups):
                t = self._count(index, group)
                if t:
                    group["eps"] = group["eps"] / math.sqrt(1 - group["betas"][1] ** t)
            _bare_step(self)
        finally:
            # Groups are saved with the state: what is saved is the published eps.
            for group, eps in zip(self.param_groups, published, strict=True):
                group["eps"] = eps
        return loss

    def _count(self, index: int, group: dict[str, Any]) -> int:
        """Number of the group's update about to be made, 0 if it has no gradient."""
        if all(parameter.grad is None for parameter in group["params"]):
            return 0
        if index not in self._finished:
            # AdamW counts on the device: read it once (after loading), then count along, without waiting for it.
            steps = [self.state[parameter]["step"] for parameter in group["params"] if self.state.get(parameter)]
            self._finished[index] = max((int(step) for step in steps), default=0)
        self._finished[index] += 1
        return self._finished[index]


def _offers_fused(parameter: Tensor) -> bool:
    return parameter.is_floating_point() and parameter.device.type in _FUSED_DEVICES
