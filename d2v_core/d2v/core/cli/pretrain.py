"""`d2v pretrain`: data2vec on unlabelled data."""

from argparse import Namespace

from d2v.core.cli.command import Command, takes_recipe
from d2v.core.jobs import pretrain
from d2v.core.recipes import parse_overrides


def run(arguments: Namespace) -> None:
    """Do it."""
    fitted = pretrain(arguments.recipe, parse_overrides(arguments.overrides))
    print(f"{fitted.step} updates")


COMMAND = Command(
    name="pretrain",
    summary="pretrain on unlabelled data",
    details="""Keys that are needed: data.path (a folder, or a built-in set) and out (the run folder).
Often given: seed, train.max_steps, train.batch_size, train.accumulate, train.precision, optim.lr, device.
Stop it at any moment (Ctrl-C saves the last update); resume=true goes on. `d2v recipe RECIPE` lists all keys.

The run folder holds config.yaml, metrics.jsonl, checkpoints/ and, at the end, model/.""",
    example="d2v pretrain vision/small data.path=fashion-mnist out=run\n"
    "d2v pretrain vision/base data.path=images out=run train.precision=bf16 train.accumulate=4",
    add_arguments=takes_recipe,
    run=run,
)
