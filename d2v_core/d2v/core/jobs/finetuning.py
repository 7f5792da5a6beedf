"""The call behind `d2v finetune`."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Unpack

import attrs
import torch
from torch import nn
from torch.optim import Optimizer

from d2v.core.data import Batches, Seen
from d2v.core.data.seen import How
from d2v.core.description import Description
from d2v.core.durations import updates
from d2v.core.files import ConfigError, Stored, open_model
from d2v.core.jobs.device import pick_device, use_threads
from d2v.core.jobs.keywords import FinetuneKeys
from d2v.core.jobs.models import check_preparation, data_for, encoder_of, inherited, match_input, matched
from d2v.core.jobs.opening import say_contents
from d2v.core.jobs.running import run_training, set_up, train_by, training_batches
from d2v.core.jobs.scoring import scored
from d2v.core.jobs.seen import added, seen_before, seen_in
from d2v.core.jobs.several_runs import run_each, settings_of_each
from d2v.core.labels import Labels
from d2v.core.model import Batch, Student, StudentConfig
from d2v.core.paths import expanded
from d2v.core.recipes import FinetuneRecipe, read_recipe, recipe_value, recipe_values, without_path
from d2v.core.recipes.keywords import with_keywords
from d2v.core.recipes.several_values import alternatives, combinations
from d2v.core.train import Fitted, Freeze, Validation
from d2v.core.train.ranks import world
from d2v.core.train.signals import until_stopped
from d2v.core.train.strategies import Strategy

_logger = logging.getLogger(__name__)


def finetune(
    recipe: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    progress: bool = True,
    **keys: Unpack[FinetuneKeys],
) -> Fitted:
    """Train a task on top of a pretrained model, into the run folder `out`.

    The folder has the layout of `pretrain`'s. Ctrl-C saves the last finished update, and `resume=true` continues from
    there. Several values of a number of `optim` (`optim.lr=1e-5,2e-5`) make a run each, in subfolders of `out`.

    Args:
        recipe: name (`vision/small-finetune`), or path of a YAML file.
        overrides: settings by dotted key, as on the command line.
        progress: whether to show progress on standard error.
        keys: settings as keywords: `data="photos"`, `lr=1e-3`, `freeze={"updates": 9}`; `model`, `data` and `out` are
            required.

    Returns:
        Result of the run; with several values, that of the best one by validation, and a table (`SeveralRuns`). With
        `resume=true`, finished runs are not trained again.

    Raises:
        UnknownNameError: if the recipe does not exist.
        ConfigError: if a key is unknown, missing or of a wrong type, the model does not fit the recipe, or several
            values cannot be compared.
        FileNotFoundError: if there is no model at `model`.
        DataError: if the data cannot be used, or has no labels of the kind that the task needs.
        RunFolderError: if the run folder cannot be used.
        Interrupted: at Ctrl-C or SIGTERM; finished updates are saved.

    >>> finetune("vision/small-finetune", model="run", data="photos", out="classifier").best_step  # doctest: +SKIP
    900
    >>> finetune("vision/small-finetune", {"optim.lrr": 1e-3}, model="run", data="photos", out="classifier")
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: unknown key 'optim.lrr'; did you mean 'optim.lr'?
    """
    given = with_keywords(FinetuneRecipe, overrides, keys)
    _, values = recipe_values(recipe, {}, FinetuneRecipe)
    choices = alternatives(FinetuneRecipe, values, given, below="optim")
    combined = combinations(choices)
    first, stored = _settings(recipe, {**given, **combined[0]})
    if not choices:
        return _run(first, stored, progress)
    runs = settings_of_each(choices, combined, given, lambda one: recipe_for(recipe, one, stored.description))
    metric, higher = _chosen_by(first, choices)
    return run_each(runs, lambda settings: _run(settings, stored, progress), metric=metric, higher=higher)


def _chosen_by(settings: FinetuneRecipe, choices: Iterable[str]) -> tuple[str, bool]:
    """Metric that runs are compared by, and whether a higher value is better.

    Raises:
        ConfigError: if there is nothing to choose by.
    """
    if _choosing(settings) is None:
        reason = "validation.every=0" if not settings.validation.every else "the data has no split `val`"
        raise ConfigError(
            f"{', '.join(choices)}: several values are compared by validation, but {reason}; set validation.split to "
            "the split to choose on, and validation.every above 0, or give one value"
        )
    metric = settings.validation.best or settings.task.best
    return metric, metric not in settings.task.scorer(settings.data.labels(settings.task.labels)).lower_is_better


def _run(settings: FinetuneRecipe, stored: Stored, progress: bool) -> Fitted:
    """Train with settings; the stored model is not changed."""
    use_threads(settings.threads)
    device = pick_device(settings.device)
    task = settings.task
    known = stored.description.student.modalities
    if task.modality not in known:
        raise ConfigError(
            f"model={settings.model}: the task needs a model of {task.modality}, this one is of {', '.join(known)}"
        )
    say_contents(settings.data)
    labels = settings.data.labels(task.labels)
    data = training_batches(settings, labels)
    encoder, config = encoder_of(stored, settings.weights, adapt=task.adapt, seed=settings.seed)
    config = matched(config, settings.data, task.modality)
    model, optimizer, strategy = _put_together(settings, encoder, config, labels, device)
    frozen = updates(settings.freeze.updates, settings.train.max_steps)
    validation = _validation(settings, model, labels, device)
    return run_training(
        settings,
        description=Description(
            model=config,
            data={task.modality: without_path(settings.data)},
            task=task,
            labels=labels,
            files={**stored.description.files, **settings.data.files()},
            seen=_seen(settings, stored, data, labels),
        ),
        model=model,
        data=data,
        optimizer=optimizer,
        strategy=strategy,
        progress=progress,
        validation=validation,
        freeze=Freeze(model, settings.freeze.patterns, updates=frozen) if frozen else None,
    )


def recipe_for(recipe: str, overrides: Mapping[str, Any], description: Description) -> FinetuneRecipe:
    """A fine-tuning recipe for a model; input is prepared as in the model's pretraining unless the recipe sets it.

    Raises:
        UnknownNameError: if the recipe does not exist.
        ConfigError: if it is for another command, a key is wrong, or `data` contradicts the model.
    """
    settings = read_recipe(recipe, overrides, FinetuneRecipe, complete=lambda values: _inherit(values, description))
    if settings.preparation == "model":
        check_preparation(settings.data, description)
    return attrs.evolve(settings, data=data_for(settings.data, description))


def _inherit(values: dict[str, Any], description: Description) -> None:
    if isinstance(values.get("data"), dict):
        values["data"] = inherited(description, values["data"])


def _settings(recipe: str, overrides: Mapping[str, Any]) -> tuple[FinetuneRecipe, Stored]:
    model = recipe_value(recipe, overrides, FinetuneRecipe, "model")
    if not isinstance(model, str | os.PathLike):
        read_recipe(recipe, overrides, FinetuneRecipe)  # raises if any other key is missing
        raise ConfigError("missing key 'model': give a run, a file or a name from `d2v models`")
    stored = open_model(expanded(model))
    return recipe_for(recipe, overrides, stored.description), stored


def trial(
    settings: FinetuneRecipe,
    encoder: Student,
    config: StudentConfig,
    test: Iterable[Batch],
    *,
    labels: Labels,
    device: torch.device,
) -> float:
    """Fine-tune without writing any files, and return the task's main metric.

    Args:
        settings: of the fine-tuning; its model, run folder, validation and freezing are ignored.
        encoder: to start from; it is trained in place.
        config: of the encoder.
        test: labelled batches to evaluate on at the end.
        labels: of the batches.
        device: device to train on.

    Raises:
        ValueError: if the metric is undefined on them.
    """
    data = training_batches(settings, labels)
    model, optimizer, strategy = _put_together(settings, encoder, config, labels, device)
    train_by(settings, model, data, optimizer, strategy=strategy)
    model.eval()
    best = settings.task.best
    result = scored(settings.task, model, test, labels=labels, device=device, over_ranks=False)
    if best in result.undefined():
        raise ValueError(f"{best} is undefined: {result.undefined()[best]}")
    return result.metrics()[best]


def _put_together(
    settings: FinetuneRecipe,
    encoder: Student,
    config: StudentConfig,
    labels: Labels,
    device: torch.device,
) -> tuple[nn.Module, Optimizer, Strategy]:
    task = settings.task
    match_input(settings.data, encoder, task.modality)
    torch.manual_seed(settings.seed)
    model = task.build(encoder, embed_dim=config.embed_dim, labels=labels)
    strategy = set_up(model, settings, device)
    # Third-party students may list no blocks; layer decay refuses that.
    list_blocks: Callable[[str], list[nn.Module]] | None = getattr(encoder, "blocks", None)
    blocks = list_blocks(task.modality) if list_blocks is not None else ()
    return model, settings.optim.build_for(model, blocks), strategy


def _seen(settings: FinetuneRecipe, stored: Stored, data: Batches, labels: Labels) -> tuple[Seen, ...]:
    """Records of the samples that the finished model has seen; a resumed run keeps its earlier records."""
    splits, modality = settings.data.splits(), settings.task.modality
    found = [seen_in("finetune", data, {modality: splits.train})]
    parts: list[tuple[How, str | None]] = [("choose", _choosing(settings)), ("report", splits.test)]
    # Record the whole data too: from it, evaluate knows whether a folder without splits has changed.
    for how, split in [*parts, ("report", splits.whole)]:
        if split is not None:
            batches = settings.data.build(split, batch_size=1, labels=labels)
            found.append(seen_in(how, batches, {modality: split}))
    before = seen_before(settings.out) if settings.resume else ()
    return added(before or stored.description.seen, chain.from_iterable(found))


def _choosing(settings: FinetuneRecipe) -> str | None:
    """The split that the best checkpoint is chosen on; None = the last checkpoint is used."""
    rule = settings.validation
    return (rule.split or settings.data.splits().val) if rule.every else None


def _validation(settings: FinetuneRecipe, model: nn.Module, labels: Labels, device: torch.device) -> Validation | None:
    rule, task, splits = settings.validation, settings.task, settings.data.splits()
    if not rule.every:
        return None
    chosen_on = _choosing(settings)
    split = chosen_on or splits.test
    if split is None:
        _logger.warning("data.path=%r has no held-out split: validation is skipped", settings.data.path)
        return None
    if chosen_on is None and (asked := [key for key in ("best", "patience") if getattr(rule, key) is not None]):
        raise ConfigError(
            f"validation.{asked[0]} chooses a checkpoint, but data.path={settings.data.path!r} has no split `val` to "
            f"choose on; add one, or set validation.split={split} to choose on the reported split (evaluate notes it)"
        )
    rank, world_size = world()
    held_out = settings.data.build(
        split, batch_size=settings.train.batch_size, rank=rank, world_size=world_size, labels=labels
    )

    def measure() -> Mapping[str, float]:
        result = scored(task, model, until_stopped(held_out, device), labels=labels, device=device)
        # A metric that is undefined early in a run (a correlation with a constant) must not end it, and is never best.
        found = dict.fromkeys(result.undefined(), math.nan) | dict(result.metrics())
        return {f"val_{name}": value for name, value in found.items()}

    best = rule.best or task.best
    return Validation(
        run=measure,
        every=rule.every,
        start=updates(rule.start, settings.train.max_steps),
        # A checkpoint must not be chosen on the reported split, so that split is only monitored.
        best=None if chosen_on is None else f"val_{best}",
        higher=best not in task.scorer(labels).lower_is_better,
        patience=rule.patience,
    )
