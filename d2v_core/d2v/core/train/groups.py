"""Parameter groups of an optimiser, and their learning rates and weight decays, set before each step.

Works for any `nn.Module` and any optimiser.
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
    """Group the trainable parameters with and without weight decay for an optimiser; empty groups are left out.

    Args:
        model: module whose parameters to group; frozen parameters are left out.
        weight_decay: weight decay of the parameters that decay.
        decay: "matrices" excludes parameters with at most one axis, those whose name ends in "bias" and `no_decay`;
            "all" excludes none, as in the published runs.
        no_decay: patterns of further parameters or modules without weight decay (class tokens, positions). Each
            component of a dotted name may contain wildcards; "*" matches within one component.
        layer_decay: lower learning rates for lower blocks.

    Returns:
        Dicts with `params`, `weight_decay`, `decays` (whether `set_weight_decay` sets it), and, with a layer decay,
        `lr_scale` for `set_rates`.

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
        raise ValueError(f"decay='all' excludes nothing, so no_decay={patterns} has no effect; use decay='matrices'")
    excluded = _named(model, patterns)
    scales = {} if layer_decay is None else layer_decay.scales(model)
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = decay == "matrices" and (parameter.dim() <= 1 or name.endswith("bias") or id(parameter) in excluded)
            groups.setdefault((scales.get(id(parameter), 1.0), plain), []).append(parameter)
    if not groups:
        raise ValueError(f"{type(model).__name__} has no trainable parameter")
    # Lowest rates first, and groups with decay before those without: the order does not depend on the model's.
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return [
        {"params": parameters, "weight_decay": 0.0 if plain else weight_decay, "decays": not plain}
        | ({} if layer_decay is None else {"lr_scale": scale})
        for (scale, plain), parameters in ordered
    ]


@frozen
class LayerDecay:
    """Learning rates that decrease from block to block towards the input, for fine-tuning.

    Block i of the n blocks (from 0) has the factor decay^(n - i) on its rate. Other parameters have factor 1, as in the
    published 2.0 runs. Parameters matched by `first` have decay^(n + 1), as BEiT and data2vec 1.0 do for embeddings,
    tokens and positions.

    Args:
        decay: factor from block to block, in (0, 1].
        blocks: blocks in the order in which they run, `Backbone.blocks`.
        first: patterns of parameters or modules before the blocks.

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
        """Return the factors by id of the parameter; parameters that are missing have factor 1."""
        n = len(self.blocks)
        scales = dict.fromkeys(_named(model, tuple(self.first)), self.decay ** (n + 1))
        for i, block in enumerate(self.blocks):
            scales |= dict.fromkeys(map(id, block.parameters()), self.decay ** (n - i))
        return scales


def set_rates(optimizer: Optimizer, schedule: Callable[[int], float], n: int) -> None:
    """Set the learning rates of the update that follows `n` finished ones.

    A group's `lr_scale` is passed to the schedule's `scaled` method if it has one (`CosineSchedule` scales the peak and
    not the lowest rate, as published). Otherwise it is a factor on the rate.

    Args:
        optimizer: optimiser whose groups to set.
        schedule: function from n to the rate.
        n: number of finished updates.

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

    These are the groups with `decays` = True (set by `parameter_groups`), and groups without `decays` that have a
    weight decay above 0 at the first call.

    Args:
        optimizer: optimiser whose groups to set.
        schedule: function from n to the weight decay; no factor is applied.
        n: number of finished updates.

    Raises:
        ValueError: if no group decays.

    >>> from torch.optim import AdamW
    >>> optimizer = AdamW(parameter_groups(nn.Linear(3, 4), weight_decay=0.05))
    >>> set_weight_decay(optimizer, lambda n: 0.1, 0)
    >>> [group["weight_decay"] for group in optimizer.param_groups]
    [0.1, 0.0]
    """
    # Stored in the group, because a schedule may pass through 0.
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
    """Return the ids of parameters that a pattern matches, by any of their names or that of a module around them."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    modules = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    found = matching(patterns, [*parameters, *modules], of=f"the {type(model).__name__}")
    return {
        id(parameter)
        for name, parameter in parameters.items()
        if any(name == part or name.startswith(f"{part}.") for part in found)
    }
