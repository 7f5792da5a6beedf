"""`d2v finetune` as one call."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import nn
from torch.optim import Optimizer

from d2v.core.data import DataError
from d2v.core.files import ConfigError, Description, open_model
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.models import encoder_of
from d2v.core.jobs.running import decided_precision, run_training, training_batches
from d2v.core.model import Backbone, BackboneConfig, Batch
from d2v.core.recipes import FinetuneRecipe, read_recipe, without_path
from d2v.core.train import Fitted, Freeze, Validation, fit

_logger = logging.getLogger(__name__)


def finetune(recipe: str, overrides: Mapping[str, Any] | None = None, *, progress: bool = True) -> Fitted:
    """Train a task on top of a pretrained model; what comes out lies in the run folder `out`.

    Args:
        recipe: name (`vision/small-finetune`), or path of a YAML file.
        overrides: by dotted key, as on the command line; `model` and `data.path` have to be given.
        progress: whether to show how far it is, on standard error.

    Raises:
        UnknownNameError: if there is no such recipe.
        ConfigError: if a key is unknown, missing or of a wrong type, or the model does not fit the recipe.
        FileNotFoundError: if there is no such model.
        DataError: if the data cannot be used, or has no labels.
        RunFolderError: if the run folder cannot be used.
        Interrupted: at Ctrl-C or SIGTERM; what was finished is saved.

    >>> settings = {"model": "run", "data.path": "photos", "out": "classifier"}
    >>> finetune("vision/small-finetune", settings).best_step  # doctest: +SKIP
    900
    >>> finetune("vision/small-finetune", settings | {"optim.lrr": 1e-3})
    Traceback (most recent call last):
    d2v.core.files.structure.ConfigError: unknown key 'optim.lrr'; did you mean 'optim.lr'?
    """
    settings = read_recipe(recipe, overrides, FinetuneRecipe)
    device = pick_device(settings.device)
    stored = open_model(settings.model)
    task = settings.task
    if task.modality not in stored.description.model.adapters:
        known = ", ".join(stored.description.model.adapters)
        raise ConfigError(f"model={settings.model}: the task needs a model of {task.modality}, this one is of {known}")
    classes = settings.data.classes()
    if not classes:
        raise DataError(f"data.path={settings.data.path!r} has no labels: images of a class lie in a folder of its own")
    data = training_batches(settings, classes)
    encoder, config = encoder_of(stored, settings.weights, adapt=task.adapt, seed=settings.seed)
    adapters = {**config.adapters, task.modality: settings.data.matching(config.adapters[task.modality])}
    config = attrs.evolve(config, adapters=adapters)
    model, optimizer = _put_together(settings, encoder, config, classes, device)
    freeze = settings.freeze
    return run_training(
        settings,
        description=Description(model=config, data=without_path(settings.data), task=task, classes=classes),
        model=model,
        data=data,
        optimizer=optimizer,
        optim=settings.optim,
        train=settings.train,
        progress=progress,
        validation=_validation(settings, model, classes, device),
        freeze=Freeze(model, freeze.patterns, updates=freeze.updates) if freeze.updates else None,
    )


def trial(
    settings: FinetuneRecipe,
    encoder: Backbone,
    config: BackboneConfig,
    test: Iterable[Batch],
    *,
    classes: tuple[str, ...],
    device: torch.device,
) -> float:
    """The figure by which the task tells its best, after a fine-tuning that leaves nothing behind.

    Args:
        settings: of the fine-tuning; its model, run folder, validation and freezing are not looked at.
        encoder: to start from; it is trained.
        config: of the encoder.
        test: labelled batches that are measured at the end.
        classes: in the order of their numbers.
        device: where to.
    """
    data = training_batches(settings, classes)
    model, optimizer = _put_together(settings, encoder, config, classes, device)
    fit(
        model,
        data,
        optimizer=optimizer,
        schedule=settings.optim.build_schedule(settings.train.max_steps),
        weight_decay=settings.optim.build_weight_decay(settings.train.max_steps),
        max_steps=settings.train.max_steps,
        accumulate=settings.train.accumulate,
        clip=settings.optim.clip,
        precision=decided_precision(settings.train.precision, settings, device),
        seed=settings.seed,
    )
    model.eval()
    with torch.no_grad():
        batches = (batch.to(device) for batch in test)
        return settings.task.evaluate(model, batches, classes=classes).metrics()[settings.task.best]


def _put_together(
    settings: FinetuneRecipe, encoder: Backbone, config: BackboneConfig, classes: tuple[str, ...], device: torch.device
) -> tuple[nn.Module, Optimizer]:
    task = settings.task
    settings.data.match(encoder.adapter(task.modality))
    torch.manual_seed(settings.seed)
    model = task.build(encoder, embed_dim=config.encoder.block.embed_dim, classes=classes).to(device)
    return model, settings.optim.build_for(model, encoder.blocks(task.modality))


def _validation(
    settings: FinetuneRecipe, model: nn.Module, classes: tuple[str, ...], device: torch.device
) -> Validation | None:
    rule, task, splits = settings.validation, settings.task, settings.data.splits()
    if not rule.every:
        return None
    split = rule.split or splits.val or splits.test
    if split is None:
        _logger.warning("data.path=%r has no part that is held out: validation is left out", settings.data.path)
        return None
    held_out = settings.data.build(split, batch_size=settings.train.batch_size, classes=classes)

    def measure() -> Mapping[str, float]:
        batches = (batch.to(device) for batch in held_out)
        found = task.evaluate(model, batches, classes=classes).metrics()
        return {f"val_{name}": value for name, value in found.items()}

    return Validation(
        run=measure,
        every=rule.every,
        start=rule.start,
        best=f"val_{rule.best or task.best}",
        higher=task.higher if rule.best in (None, task.best) else rule.best != "loss",
        patience=rule.patience,
    )
