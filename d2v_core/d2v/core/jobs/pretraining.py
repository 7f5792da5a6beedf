"""The call behind `d2v pretrain`."""

from collections.abc import Mapping
from typing import Any, Unpack

import attrs
import torch

from d2v.core.data.config import with_files
from d2v.core.description import Description
from d2v.core.durations import updates
from d2v.core.files import ConfigError, open_model, to_plain
from d2v.core.jobs.device import pick_device, use_threads
from d2v.core.jobs.keywords import PretrainKeys
from d2v.core.jobs.models import match_input
from d2v.core.jobs.opening import say_contents
from d2v.core.jobs.running import run_training, set_up, training_batches, training_splits
from d2v.core.jobs.seen import added, description_before, seen_in
from d2v.core.jobs.starting import start_from
from d2v.core.model import BackboneConfig
from d2v.core.monitor import CollapseMonitor
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.core.recipes.keywords import with_keywords
from d2v.core.train import Fitted

_FIRST_JUDGED = 50  # updates; targets of nearly initial weights say nothing about a collapse


def pretrain(
    recipe: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    progress: bool = True,
    **keys: Unpack[PretrainKeys],
) -> Fitted:
    """Pretrain a model by a recipe and write the run folder `out`.

    The folder contains `config.yaml`, `metrics.jsonl`, `checkpoints` and, at the end, `model`. Ctrl-C saves the last
    finished update, and `resume=true` continues from there.

    Args:
        recipe: name (`vision/base`), or path of a YAML file.
        overrides: settings by dotted key, as on the command line.
        progress: whether to show progress on standard error.
        keys: settings as keywords: `data="photos"`, `max_steps=2000`, `train={"keep": 5}`; `data` and `out` are
            required.

    Raises:
        UnknownNameError: if the recipe does not exist.
        ConfigError: if a key is unknown, missing or of a wrong type, or the weights of `init` do not fit.
        FileNotFoundError: if there is no model at `init`.
        DataError: if the data cannot be used.
        RunFolderError: if the run folder cannot be used.
        Interrupted: at Ctrl-C or SIGTERM; finished updates are saved.

    >>> pretrain("vision/base", data="photos", out="run").step  # doctest: +SKIP
    375300
    >>> pretrain("vision/base", {"optim.lrr": 1e-3}, data="photos", out="run")
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: unknown key 'optim.lrr'; did you mean 'optim.lr'?
    """
    settings = read_recipe(recipe, with_keywords(PretrainRecipe, overrides, keys), PretrainRecipe)
    use_threads(settings.threads)
    device = pick_device(settings.device)
    check_input(settings)
    before = description_before(settings.out) if settings.resume else None
    stored = None if settings.init is None or before is not None else open_model(settings.init)
    if stored is not None:
        before = stored.description
    settings = _with_model_files(settings, before)
    for source in settings.sources.values():
        say_contents(source)
    data = training_batches(settings)
    torch.manual_seed(settings.seed)
    model = settings.model_config().build()
    for name, source in settings.sources.items():
        match_input(source, model.student, name)
    if stored is not None:
        start_from(model, stored, str(settings.init), settings)
        stored = None  # frees its weights
    seen = added(() if before is None else before.seen, seen_in("pretrain", data, training_splits(settings)))
    strategy = set_up(model, settings, device)
    warmup = max(updates(settings.monitor.warmup, settings.train.max_steps), _FIRST_JUDGED)
    monitor = CollapseMonitor(
        min_target_var=settings.monitor.min_target_var,
        min_pred_var=settings.monitor.min_pred_var,
        warmup=warmup,
        stop=settings.monitor.stop,
    )
    return run_training(
        settings,
        description=attrs.evolve(settings.description(), seen=seen),
        model=model,
        data=data,
        optimizer=settings.optim.build(model),
        strategy=strategy,
        progress=progress,
        monitor=monitor,
    )


def _with_model_files(settings: PretrainRecipe, model: Description | None) -> PretrainRecipe:
    """The settings, with data prepared by the files of the model that the run continues or starts from, if any."""
    data = {name: with_files(one, model.files if model else {}) for name, one in settings.sources.items()}
    return attrs.evolve(settings, data=data if isinstance(settings.data, Mapping) else next(iter(data.values())))


def check_input(settings: PretrainRecipe) -> None:
    """Refuse data that the model's adapters do not accept.

    Raises:
        ConfigError: naming the adapter and what differs.
        DataError: if the data can never fit them.
    """
    student = settings.model.student
    if not isinstance(student, BackboneConfig):
        return  # a third-party student checks its own input
    for name, data in settings.sources.items():
        own = student.adapters[name]
        given, wanted = to_plain(own), to_plain(data.matching(own))
        differing = [f"{key}={wanted[key]} instead of {given[key]}" for key in given if given[key] != wanted[key]]
        if differing:
            below = f"model.student.adapters.{name}"
            raise ConfigError(f"data does not fit {below}: it needs {', '.join(differing)}; set {below}.KEY to match")
