"""`d2v evaluate`: figures of a fine-tuned model."""

from argparse import Namespace

from d2v.core.cli.command import Command, takes_keys
from d2v.core.jobs import evaluate
from d2v.core.recipes import parse_overrides


def run(arguments: Namespace) -> None:
    """Do it."""
    result = evaluate(parse_overrides(arguments.overrides))
    for name, value in result.metrics().items():
        print(f"{name:<12} {value:.4g}")
    print(result.tables())


COMMAND = Command(
    name="evaluate",
    summary="measure a fine-tuned model on labelled data",
    details="""Keys: model and data.path have to be given; split (default: test, else val), out (a .json file),
batch_size, precision, device. Images are prepared as in training; data.* changes that.""",
    example="d2v evaluate model=classifier data.path=fashion-mnist\n"
    "d2v evaluate model=classifier data.path=photos split=val out=figures.json",
    add_arguments=takes_keys,
    run=run,
)
