"""Two recipes of one run compared: what is different, and whether a run may be resumed with it."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from d2v.core.changes import Change
from d2v.core.files import to_plain
from d2v.core.recipes.recipe import FinetuneRecipe, PretrainRecipe
from d2v.core.recipes.schema import REQUIRED, keys
from d2v.core.recipes.yaml_text import yaml_scalar

_LOOKS = 2000  # updates at which two schedules are compared, at most


@frozen(kw_only=True)
class Changed:
    """A key with another value.

    Args:
        key: dotted.
        before: plain value.
        after: plain value.
        how: what its field says of changes; None = a run cannot be resumed with it.

    >>> str(Changed(key="train.keep", before=2, after=3, how="free"))
    'train.keep 2 -> 3'
    """

    key: str
    before: Any
    after: Any
    how: Change | None

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.before)} -> {_shown(self.after)}"

    def both(self) -> str:
        """As a difference: - before, + after."""
        return f"-{self.key}: {_shown(self.before)}; +{self.key}: {_shown(self.after)}"


def changes(kind: type, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Changed]:
    """The keys of a recipe that have other values, in order; what is not written down of a run is left out.

    Args:
        kind: class of the recipe.
        before: plain values; what is missing has its default.
        after: plain values, likewise.

    >>> from d2v.core.recipes import TrainConfig
    >>> values = {"max_steps": 5, "batch_size": 8}
    >>> [(str(one), one.how) for one in changes(TrainConfig, values, values | {"keep": 3, "batch_size": 4})]
    [('batch_size 8 -> 4', None), ('keep 2 -> 3', 'free')]
    """
    ours, theirs = ({key.name: key for key in keys(kind, values) if not key.section} for values in (after, before))
    found = []
    for name in itertools.chain(ours, (name for name in theirs if name not in ours)):
        known = ours.get(name) or theirs[name]
        values = [side[name].value if name in side else REQUIRED for side in (theirs, ours)]
        if known.change != "unrecorded" and _plain(values[0]) != _plain(values[1]):
            found.append(Changed(key=name, before=values[0], after=values[1], how=known.change))
    return found


def rates_that_change(
    before: PretrainRecipe | FinetuneRecipe, after: PretrainRecipe | FinetuneRecipe, step: int
) -> list[str]:
    """Rates that differ between two recipes up to an update, each with what it was and what it would be.

    Args:
        before: the recipe of the run so far.
        after: the one that it is resumed with.
        step: finished updates, at least 1.
    """
    found = []
    theirs, ours = dict(_rates(before)), dict(_rates(after))
    for name, (first, rate) in ours.items():
        if name not in theirs:
            continue
        old = theirs[name][1]
        looks = {first + step * i // _LOOKS for i in range(_LOOKS)} | {first + step - 1}
        differing = [n for n in looks if rate(n) != old(n)]
        if differing:
            # Of the next update, if the run so far had one, else where they differed last.
            here = first + step if step < before.train.max_steps else max(differing)
            when = "the next update" if here == first + step else f"update {here - first + 1}"
            found.append(f"{name} of {when} would be {rate(here):.4g} instead of {old(here):.4g}")
    return found


def _rates(recipe: PretrainRecipe | FinetuneRecipe) -> Iterator[tuple[str, tuple[int, Callable[[int], float]]]]:
    """Schedules by name, each with the first number that it takes."""
    total = recipe.train.max_steps
    yield "the learning rate", (0, recipe.optim.build_schedule(total))
    weight_decay = recipe.optim.build_weight_decay(total)
    if weight_decay is not None:
        yield "the weight decay", (0, weight_decay)
    if isinstance(recipe, PretrainRecipe):
        yield "the teacher's decay", (1, recipe.model.teacher.schedule)


def _plain(value: Any) -> Any:
    return value if value is REQUIRED else to_plain(value)


def _shown(value: Any) -> str:
    return "(not there)" if value is REQUIRED else yaml_scalar(value)
