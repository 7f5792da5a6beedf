"""Shared steps of pretraining and fine-tuning: from settings and a model to a finished run folder."""

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, get_args

import attrs
import torch
from torch import nn
from torch.optim import Optimizer

from d2v.core.data import Batches, Mixture
from d2v.core.data.batches import known_length
from d2v.core.description import Description
from d2v.core.files import ConfigError, description_to_plain, to_plain
from d2v.core.jobs.kernels import kernels_of, use_kernels
from d2v.core.jobs.resuming import allowed_changes
from d2v.core.labels import Labels
from d2v.core.model import Batch
from d2v.core.monitor import CollapseMonitor
from d2v.core.precision import AskedPrecision, Precision, decided
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe, resolved_text, shared_text
from d2v.core.recipes.recipe import Run
from d2v.core.recipes.sections import PLAIN
from d2v.core.recipes.yaml_text import read_yaml
from d2v.core.train import (
    Fitted,
    Freeze,
    JsonLines,
    LossScale,
    Progress,
    RunFolder,
    Skipping,
    TensorBoard,
    Validation,
    fit,
)
from d2v.core.train.busy import BusyHint
from d2v.core.train.preparing import checkpoint_activations, compile_blocks
from d2v.core.train.ranks import world
from d2v.core.train.strategies import Strategy, strategy_by_name
from d2v.core.train.trackers import sinks_by_name


def training_batches(recipe: PretrainRecipe | FinetuneRecipe, labels: Labels | None = None) -> Batches:
    """Endless training batches of this rank; with several modalities, drawn in the proportions of `sampling`."""
    rank, world_size = world()
    parts = recipe.sources if isinstance(recipe, PretrainRecipe) else {recipe.task.modality: recipe.data}
    splits = training_splits(recipe)
    built = {
        name: data.build(
            splits[name],
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            rank=rank,
            world_size=world_size,
            training=True,
            labels=labels,
        )
        for name, data in parts.items()
    }
    if len(built) == 1:
        return next(iter(built.values()))
    weights = recipe.sampling if isinstance(recipe, PretrainRecipe) else {}
    return Mixture(built, {name: weights.get(name, 1.0) for name in built}, seed=recipe.seed)


def training_splits(recipe: PretrainRecipe | FinetuneRecipe) -> dict[str, str]:
    """Names of the splits that a run trains on, by modality."""
    if isinstance(recipe, FinetuneRecipe):
        return {recipe.task.modality: recipe.data.splits().train}
    found = {name: data.splits() for name, data in recipe.sources.items()}
    return {name: splits.pretrain or splits.train for name, splits in found.items()}


def set_up(model: nn.Module, recipe: PretrainRecipe | FinetuneRecipe, device: torch.device) -> Strategy:
    """Put a model on its device and prepare it for training, before the optimiser is made.

    Returns:
        How the processes of this run share the work.

    Raises:
        ConfigError: if the strategy and the number of processes do not fit, or the model has no blocks for a switch, or
            no kernels of a name.
    """
    train = recipe.train
    model.to(device)
    precision = decided_precision(train.precision, recipe, device)
    use_kernels(model, train.kernels, recorded=recorded_kernels(recipe), precision=precision)
    try:
        strategy = strategy_by_name(train.strategy)
        if train.checkpoint_activations:
            checkpoint_activations(model)
        if train.compile:
            compile_blocks(model)
    except ValueError as error:
        raise ConfigError(f"train.{error}") from error
    strategy.shard(model)
    return strategy


def run_training(
    recipe: PretrainRecipe | FinetuneRecipe,
    *,
    description: Description,
    model: nn.Module,
    data: Batches,
    optimizer: Optimizer,
    strategy: Strategy,
    progress: bool,
    monitor: CollapseMonitor | None = None,
    validation: Validation | None = None,
    freeze: Freeze | None = None,
) -> Fitted:
    """Open the run folder and train a model that was `set_up`. The loader reports samples that could not be read."""
    train = recipe.train
    device = next(model.parameters()).device
    precision = decided_precision(train.precision, recipe, device)
    as_asked = attrs.evolve(recipe, train=attrs.evolve(train, precision=precision))
    resolved = attrs.evolve(recipe, train=attrs.evolve(as_asked.train, kernels=kernels_of(model)))
    more_sinks = sinks_by_name(train.sinks, Path(recipe.out).absolute(), to_plain(resolved))
    run = RunFolder(
        recipe.out,
        config=resolved_text(resolved),
        description=description_to_plain(description),
        files=description.all_files(),
        recipe=shared_text(as_asked),  # passed on to other machines, which choose their own kernels
        resume=recipe.resume,
        keep=train.keep,
        judge=lambda text: allowed_changes(resolved, text, data),
    )
    if progress and world()[0] == 0 and any(isinstance(sink, TensorBoard) for sink in more_sinks):
        print(f"tensorboard --logdir {shlex.quote(recipe.out)}", file=sys.stderr)
    try:
        return train_by(
            resolved,
            model,
            data,
            optimizer,
            strategy=strategy,
            run=run,
            accept_data="data" in recipe.accept,
            checkpoint_every=train.checkpoint_every,
            log_every=train.log_every,
            sinks=[JsonLines(run.metrics), *more_sinks],
            monitor=monitor,
            validation=validation,
            freeze=freeze,
            hooks=[BusyHint(torch.get_num_threads())] if device.type == "cpu" and world()[0] == 0 else (),
            progress=Progress(last_update(recipe, data)) if progress else None,
        )
    finally:
        run.close()


def train_by(
    recipe: PretrainRecipe | FinetuneRecipe,
    model: nn.Module,
    data: Batches,
    optimizer: Optimizer,
    *,
    max_steps: int | None = None,
    **options: Any,
) -> Fitted:
    """Train as a recipe says. Without `options`, nothing is written: the result is the trained model.

    Args:
        recipe: its run folder, validation, monitor and freezing are ignored.
        model: model to train, on its device.
        data: batches of this rank.
        optimizer: of the model's parameters.
        max_steps: updates to stop after, at least 1, on the schedule of the whole recipe; None = the recipe's.
        options: other arguments of `fit`: hooks, a run folder, sinks, monitor.

    Raises:
        ConfigError: if epochs are limited, and the data has none.
    """
    train, optim = recipe.train, recipe.optim
    return fit(
        model,
        data,
        optimizer=optimizer,
        schedule=optim.build_schedule(train.max_steps),
        weight_decay=optim.build_weight_decay(train.max_steps),
        max_steps=last_update(recipe, data) if max_steps is None else max_steps,
        accumulate=train.accumulate,
        clip=optim.clip,
        precision=decided_precision(train.precision, recipe, next(model.parameters()).device),
        loss_scale=LossScale.published(workers=world()[1], accumulate=train.accumulate, minimum=train.min_loss_scale),
        seed=recipe.seed,
        skipping=Skipping(limit=train.max_skipped_updates, spike_ratio=train.spike_ratio, debug=train.debug),
        timeout=train.timeout,
        **options,
    )


def last_update(recipe: PretrainRecipe | FinetuneRecipe, data: Batches) -> int:
    """Number of the update that a run ends with: `train.max_steps`, or that of the last epoch.

    Raises:
        ConfigError: if epochs are limited, and the data has none.
    """
    train = recipe.train
    if train.max_epochs is None:
        return train.max_steps
    length = known_length(data)
    if length is None:
        raise ConfigError(f"train.max_epochs={train.max_epochs}: this data has no epochs; set train.max_steps only")
    return min(train.max_steps, max(1, train.max_epochs * length // train.accumulate))


def decided_precision(asked: AskedPrecision, recipe: Run, device: torch.device) -> Precision:
    """Precision that `auto` means: the precision of the run that is resumed, else the device's native one.

    A run keeps the precision that it started with, so that it can be resumed on another device.
    """
    found = (_recorded(recipe) or {}).get("precision") if asked == "auto" else None
    known: tuple[Precision, ...] = get_args(Precision)
    return known[known.index(found)] if found in known else decided(asked, device)


def recorded_kernels(recipe: Run) -> tuple[str, ...] | None:
    """Return the forms of computation that the resumed run started with; None for a new run."""
    train = _recorded(recipe)
    if train is None:
        return None
    found = train.get("kernels")
    return tuple(map(str, found)) if isinstance(found, list) and found else PLAIN  # earlier versions had no others


def _recorded(recipe: Run) -> Mapping[str, Any] | None:
    """Return section `train` that the resumed run recorded when it started; None for a new run."""
    started = Path(recipe.out) / "config.yaml"
    if not recipe.resume or not started.is_file():
        return None
    values = read_yaml(started.read_text(), name=str(started))
    train = values.get("train") if isinstance(values, dict) else None
    return train if isinstance(train, dict) else {}


def with_progress(batches: Iterable[Batch], progress: bool) -> Iterator[Batch]:
    """The batches of one pass, with progress on standard error if their number is known."""
    with counting(known_length(batches), progress) as advance:
        for batch in batches:
            yield batch
            advance()


@contextmanager
def counting(total: int | None, progress: bool) -> Iterator[Callable[[], None]]:
    """Show progress on standard error, if the number of steps is known; gives a function to call after each step."""
    if not progress or not total:
        yield lambda: None
        return
    line, done = Progress(total), count(1)
    line.start(0)
    yield lambda: line.advance(next(done))
    line.close()
