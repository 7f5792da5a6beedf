"""`d2v predict`: what a fine-tuned model says of files."""

from argparse import Namespace

from d2v.core.cli.command import Command, takes_keys
from d2v.core.jobs import predict
from d2v.core.jobs.evaluation import as_csv
from d2v.core.recipes import parse_overrides


def run(arguments: Namespace) -> None:
    """Do it."""
    overrides = parse_overrides(arguments.overrides)
    rows = predict(overrides)
    if overrides.get("out") is None:
        print(as_csv(rows), end="")
    else:
        print(f"{len(rows)} predictions in {overrides['out']}")


COMMAND = Command(
    name="predict",
    summary="let a fine-tuned model read files",
    details="""Keys: model and data.path have to be given; out (a .csv or .jsonl file; without it the table is printed),
split (default: all files of the folder), batch_size, precision, device.""",
    example="d2v predict model=classifier data.path=photos out=predictions.csv",
    add_arguments=takes_keys,
    run=run,
)
