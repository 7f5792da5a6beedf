"""What the optimiser is given, and the Adam of the published runs.

It knows nothing of data2vec: any `nn.Module` has parameters, and either piece works without the other.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from attrs import define, field, frozen
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from d2v.core.patterns import matching

# torch wraps the `step` of each optimiser class that is used with the calls of its step hooks. Ours is wrapped too, so
# it calls the bare one; else the hooks would run twice wherever a plain AdamW lives in the same process.
_bare_step: Callable[..., Any] = inspect.unwrap(AdamW.step)

_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})
_MOMENTS = ("exp_avg", "exp_avg_sq")


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
