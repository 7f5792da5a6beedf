"""`d2v finetune`: a task on top of a pretrained model."""

from argparse import Namespace

from d2v.core.cli.command import Command, takes_recipe
from d2v.core.jobs import finetune
from d2v.core.recipes import parse_overrides


def run(arguments: Namespace) -> None:
    """Do it."""
    fitted = finetune(arguments.recipe, parse_overrides(arguments.overrides))
    best = "" if fitted.best_step is None else f", the best after {fitted.best_step}"
    print(f"{fitted.step} updates{best}")


COMMAND = Command(
    name="finetune",
    summary="train a task on top of a pretrained model",
    details="""Keys that are needed: model (a run, a model folder or a checkpoint file), data.path and out (the run
folder). Often given: weights (student, teacher, random), data.per_class, seed, optim.lr, optim.layer_decay,
train.max_steps, train.batch_size, validation.every, freeze.updates. `d2v recipe RECIPE` lists all keys.

Images: one folder a class, below train/ and val/ (or test/). resume=true goes on with a run.""",
    example="d2v finetune vision/small-finetune model=run data.path=fashion-mnist out=classifier",
    add_arguments=takes_recipe,
    run=run,
)
