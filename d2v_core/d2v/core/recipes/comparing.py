"""Compare two recipes of one run: which keys differ, and whether the run may be resumed with them."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from d2v.core.changes import Change
from d2v.core.files import to_plain
from d2v.core.recipes.recipe import FinetuneRecipe, PretrainRecipe
from d2v.core.recipes.schema import REQUIRED, keys
from d2v.core.recipes.yaml_text import yaml_scalar

_CHECKED = 2000  # updates at which two schedules are compared, at most


@frozen(kw_only=True)
class Changed:
    """A key whose value differs.

    Args:
        key: dotted key.
        before: plain value before.
        after: plain value now.
        how: how the field may change; None = a run cannot be resumed with the change.

    >>> str(Changed(key="train.keep", before=2, after=3, how="free"))
    'train.keep 2 -> 3'
    """

    key: str
    before: Any
    after: Any
    how: Change | None

    def __str__(self) -> str:
        return f"{self.key} {_as_text(self.before)} -> {_as_text(self.after)}"

    def both(self) -> str:
        """As a difference: - before, + after."""
        return f"-{self.key}: {_as_text(self.before)}; +{self.key}: {_as_text(self.after)}"


def changes(kind: type, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Changed]:
    """The keys of a recipe whose values differ, in order; keys that a run does not record are left out.

    Args:
        kind: class of the recipe.
        before: plain values; missing keys have their defaults.
        after: plain values; missing keys have their defaults.

    >>> from d2v.core.recipes import TrainConfig
    >>> values = {"max_steps": 5, "batch_size": 8}
    >>> [(str(one), one.how) for one in changes(TrainConfig, values, values | {"keep": 3, "batch_size": 4})]
    [('batch_size 8 -> 4', None), ('keep 2 -> 3', 'free')]
    """
    new, old = ({key.name: key for key in keys(kind, values) if not key.section} for values in (after, before))
    found = []
    for name in itertools.chain(new, (name for name in old if name not in new)):
        known = new.get(name) or old[name]
        values = [side[name].value if name in side else REQUIRED for side in (old, new)]
        if known.change != "unrecorded" and _plain(values[0]) != _plain(values[1]):
            found.append(Changed(key=name, before=values[0], after=values[1], how=known.change))
    return found


def rates_that_change(
    before: PretrainRecipe | FinetuneRecipe, after: PretrainRecipe | FinetuneRecipe, step: int
) -> list[str]:
    """Schedules that differ between two recipes up to an update, each with the old and the new value.

    Args:
        before: the recipe of the run so far.
        after: the recipe to resume with.
        step: finished updates, at least 1.
    """
    found = []
    old_rates, new_rates = dict(_rates(before)), dict(_rates(after))
    for name, (first, rate) in new_rates.items():
        if name not in old_rates:
            continue
        old = old_rates[name][1]
        checked = {first + step * i // _CHECKED for i in range(_CHECKED)} | {first + step - 1}
        differing = [n for n in checked if rate(n) != old(n)]
        if differing:
            # Report the next update if the old run had one, else the last update that differs.
            here = first + step if step < before.train.max_steps else max(differing)
            when = "the next update" if here == first + step else f"update {here - first + 1}"
            found.append(f"{name} of {when} would be {rate(here):.4g} instead of {old(here):.4g}")
    return found


def _rates(recipe: PretrainRecipe | FinetuneRecipe) -> Iterator[tuple[str, tuple[int, Callable[[int], float]]]]:
    """Schedules by name, each with the first update number that it accepts."""
    total = recipe.train.max_steps
    yield "the learning rate", (0, recipe.optim.build_schedule(total))
    weight_decay = recipe.optim.build_weight_decay(total)
    if weight_decay is not None:
        yield "the weight decay", (0, weight_decay)
    if isinstance(recipe, PretrainRecipe):
        yield "the teacher's decay", (1, recipe.model.teacher.schedule)


def _plain(value: Any) -> Any:
    return value if value is REQUIRED else to_plain(value)


def _as_text(value: Any) -> str:
    return "(not set)" if value is REQUIRED else yaml_scalar(value)
