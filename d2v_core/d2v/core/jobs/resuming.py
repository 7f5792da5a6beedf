"""Whether a run may be resumed with another configuration: each field says whether it may change."""

from collections.abc import Mapping
from typing import Any

from d2v.core.data import Batches, identity_of
from d2v.core.files import ConfigError, from_plain, to_plain
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe
from d2v.core.recipes.comparing import Changed, changes, rates_that_change
from d2v.core.recipes.yaml_text import read_yaml
from d2v.core.train import RunFolderError
from d2v.core.train.run_folder import newest_step

_Recipe = PretrainRecipe | FinetuneRecipe
_SHOWN = 6
_NOT_EXACT = ": the run is no longer bit-identical to an uninterrupted one"
_MEANING = {"machine": _NOT_EXACT, "processes": _NOT_EXACT}


def allowed_changes(recipe: _Recipe, config_text: str, data: Batches) -> list[str]:
    """Describe each allowed change of a resumed run in one line.

    Args:
        recipe: configuration to resume with.
        config_text: text of the run's `config.yaml`.
        data: batches to resume with. Whether the samples are the same is checked later, against the checkpoint.

    Raises:
        RunFolderError: if a field differs that may not change, naming it and the fix.
        ConfigError: if the text is not YAML.
    """
    before = read_yaml(config_text, name=f"{recipe.out}/config.yaml")
    if not isinstance(before, dict):
        raise RunFolderError(f"{recipe.out}/config.yaml is not the configuration of a run; choose another out")
    found = changes(type(recipe), before, to_plain(recipe))
    identity = identity_of(data)
    named = identity is not None and identity.digest != ""
    refused = [one for one in found if one.how is None or (one.how == "data" and not named)]
    if refused:
        shown = "; ".join(one.both() for one in refused[:_SHOWN])
        more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise RunFolderError(
            f"{recipe.out} was started with another configuration (- before, + now): {shown}{more}; keep "
            f"{'these keys' if len(refused) > 1 else 'this key'}, or choose another out{_from_weights(recipe)}"
        )
    length = [one for one in found if one.how == "length"]
    lines = [f"{one}{_MEANING.get(one.how, '')}" for one in found if one.how is not None and one not in length]
    return [*lines, *_longer(recipe, before, length)]


def _longer(recipe: _Recipe, before: Mapping[str, Any], found: list[Changed]) -> list[str]:
    step = newest_step(recipe.out)
    if not found:
        return []
    if step is None:
        return [str(one) for one in found]
    try:
        old: _Recipe = from_plain({**before, "out": recipe.out}, type(recipe))
    except ConfigError as error:
        raise RunFolderError(f"{recipe.out}/config.yaml cannot be read by this version: {error}") from error
    length = recipe.train.max_steps
    if length < step:
        raise RunFolderError(
            f"train.max_steps={length}: the run in {recipe.out} has made {step} updates already; set {step} or more"
        )
    # Keys that follow from the length need no mention.
    what = "; ".join([str(one) for one in found if one.key == "train.max_steps"] or map(str, found))
    differing = rates_that_change(old, recipe, step)
    if not differing:
        return [f"{what}: schedules up to here are the same"]
    if "schedule" not in recipe.accept:
        ended = f"the run finished after {step} updates, and " if step >= old.train.max_steps else ""
        ways = ["accept=schedule resumes anyway", f"train.max_steps={old.train.max_steps} keeps the schedule"]
        raise RunFolderError(
            f"{what}: {ended}{', '.join(differing)}, since schedules span train.max_steps; "
            f"{', '.join(ways[: 1 if ended else 2])}{_from_weights(recipe)}"
        )
    return [f"{what}: {', '.join(differing)}"]


def _from_weights(recipe: _Recipe) -> str:
    if not isinstance(recipe, PretrainRecipe):
        return ""
    return f"; init={recipe.out} with another out starts a new run from these weights"
