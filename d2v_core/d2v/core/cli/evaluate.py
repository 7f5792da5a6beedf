"""`d2v evaluate`: figures of a fine-tuned model."""

from argparse import Namespace

from d2v.core.cli.command import Command, takes_keys
from d2v.core.jobs import evaluate
from d2v.core.recipes import parse_overrides
from d2v.core.train.gradients import world


def run(arguments: Namespace) -> None:
    """Do it."""
    result = evaluate(parse_overrides(arguments.overrides))
    if world()[0] > 0:
        return  # the first process prints
    parts = []
    for split, one in result.splits.items():
        lines = [f"{name:<12} {value:.4g}" for name, value in one.metrics().items()]
        lines += [f"{name:<12} undefined: {reason}" for name, reason in one.undefined().items()]
        title = [split] if len(result.splits) > 1 else []
        parts.append("\n".join([*title, *lines, one.tables()]))
    print("\n\n".join(parts))


COMMAND = Command(
    name="evaluate",
    summary="measure a fine-tuned model on labelled data",
    details="""Keys: model and data.path have to be given; split (one, or several as [val,test]; default: test, else
val), out (a .json file), batch_size, precision, device, and options of the task that can be changed at use
(task.metrics=[mcc]). Data are prepared as in training; data.* changes that.""",
    example="d2v evaluate model=classifier data.path=fashion-mnist\n"
    "d2v evaluate model=classifier data.path=photos split=[val,test] out=figures.json",
    add_arguments=takes_keys,
    run=run,
)
