"""What pretraining and fine-tuning share: from settings and a model to a finished run folder."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer

from d2v.core.data import Loader
from d2v.core.files import Description
from d2v.core.model import Batch
from d2v.core.monitor import CollapseMonitor
from d2v.core.recipes import FinetuneRecipe, OptimConfig, PretrainRecipe, TrainConfig, resolved_text
from d2v.core.recipes.recipe import Run
from d2v.core.train import (
    Fitted,
    Freeze,
    JsonLines,
    MetricSink,
    Progress,
    RunFolder,
    TensorBoard,
    Validation,
    fit,
)
from d2v.core.train.gradients import world


def training_batches(recipe: PretrainRecipe | FinetuneRecipe, classes: tuple[str, ...] | None = None) -> Loader[Any]:
    """The endless batches of this rank, of the part that is for training."""
    rank, world_size = world()
    return recipe.data.build(
        recipe.data.splits().train,
        batch_size=recipe.train.batch_size,
        seed=recipe.seed,
        rank=rank,
        world_size=world_size,
        training=True,
        classes=classes,
    )


def run_training(
    recipe: Run,
    *,
    description: Description,
    model: nn.Module,
    data: Loader[Any],
    optimizer: Optimizer,
    optim: OptimConfig,
    train: TrainConfig,
    progress: bool,
    monitor: CollapseMonitor | None = None,
    validation: Validation | None = None,
    freeze: Freeze | None = None,
) -> Fitted:
    """Open the run folder and train; what could not be read is the loader's to tell."""
    run = RunFolder(
        recipe.out,
        config=resolved_text(recipe),
        description=description.to_plain(),
        resume=recipe.resume,
        keep=train.keep,
    )
    sinks: list[MetricSink] = [JsonLines(run.metrics)]
    if TensorBoard.available():
        sinks.append(TensorBoard(run.path / "tensorboard"))
    try:
        return fit(
            model,
            data,
            optimizer=optimizer,
            schedule=optim.build_schedule(train.max_steps),
            max_steps=train.max_steps,
            accumulate=train.accumulate,
            clip=optim.clip,
            precision=train.precision,
            seed=recipe.seed,
            run=run,
            checkpoint_every=train.checkpoint_every,
            log_every=train.log_every,
            sinks=sinks,
            monitor=monitor,
            validation=validation,
            freeze=freeze,
            progress=Progress(train.max_steps) if progress else None,
        )
    finally:
        run.close()


def shown(loader: Loader[Any], progress: bool) -> Iterator[Batch]:
    """The batches of one pass, with progress on standard error."""
    line = Progress(len(loader)) if progress else None
    if line is not None:
        line.start(0)
    for done, batch in enumerate(loader, 1):
        yield batch
        if line is not None:
            line.advance(done)
    if line is not None:
        line.close()
