"""What an optimiser is given: groups of parameters, and the rates and decays that are set before each of its steps.

It knows nothing of data2vec and of no optimiser in particular: any `nn.Module` has parameters.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from attrs import field, frozen
from attrs.validators import min_len
from torch import Tensor, nn
from torch.optim import Optimizer

from d2v.core.patterns import matching
from d2v.core.validators import check, factor, not_negative, one_of

Decay = Literal["matrices", "all"]


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    decay: Decay = "matrices",
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
        Dicts with `params`, `weight_decay`, `decays` (whether `set_weight_decay` sets it), and `lr_scale` for
        `set_rates` where there is a layer decay.

    Raises:
        ValueError: if nothing is trainable, a pattern matches nothing, or patterns are given with decay="all".

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    >>> [(group["weight_decay"], len(group["params"])) for group in parameter_groups(model, weight_decay=0.05)]
    [(0.05, 1), (0.0, 3)]
    """
    patterns = tuple(no_decay)
    check(one_of(Decay), decay=decay)
    check(not_negative, weight_decay=weight_decay)
    if decay == "all" and patterns:
        raise ValueError(f"decay='all' spares nothing, so no_decay={patterns} has no meaning; use decay='matrices'")
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
        {"params": parameters, "weight_decay": 0.0 if plain else weight_decay, "decays": not plain}
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

    decay: float = field(validator=factor)
    blocks: Sequence[nn.Module] = field(kw_only=True, validator=min_len(1))
    first: Sequence[str] = field(default=(), kw_only=True)

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

    >>> from torch.optim import SGD
    >>> weight = nn.Linear(1, 1).weight
    >>> optimizer = SGD([{"params": [weight], "lr_scale": 0.5}])
    >>> set_rates(optimizer, lambda n: 0.1, 0)
    >>> optimizer.param_groups[0]["lr"]
    0.05
    """
    scaled: Callable[[float], Callable[[int], float]] | None = getattr(schedule, "scaled", None)
    for group in optimizer.param_groups:
        factor = group.get("lr_scale", 1.0)
        group["lr"] = scaled(factor)(n) if scaled is not None and factor != 1 else factor * schedule(n)


def set_weight_decay(optimizer: Optimizer, schedule: Callable[[int], float], n: int) -> None:
    """Set the weight decay of the update that follows `n` finished ones, in the groups that decay.

    Those are the groups whose `decays` is true (`parameter_groups` sets it); of others, those with a weight decay above
    0 when this is first called.

    Args:
        optimizer: whose groups.
        schedule: n to weight decay; no factor is applied to it.
        n: finished updates.

    Raises:
        ValueError: if no group decays.

    >>> from torch.optim import AdamW
    >>> optimizer = AdamW(parameter_groups(nn.Linear(3, 4), weight_decay=0.05))
    >>> set_weight_decay(optimizer, lambda n: 0.1, 0)
    >>> [group["weight_decay"] for group in optimizer.param_groups]
    [0.1, 0.0]
    """
    # Remembered: a schedule may pass through 0.
    decaying = [
        group for group in optimizer.param_groups if group.setdefault("decays", group.get("weight_decay", 0.0) > 0)
    ]
    if not decaying:
        raise ValueError(
            "a scheduled weight decay needs groups that decay; give one decays=True, as parameter_groups does"
        )
    value = schedule(n)
    for group in decaying:
        group["weight_decay"] = value


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
