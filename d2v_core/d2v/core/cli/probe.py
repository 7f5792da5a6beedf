"""`d2v probe`: what features are worth."""

from argparse import Namespace

from d2v.core.cli.command import Command, takes_keys
from d2v.core.jobs import probe
from d2v.core.recipes import parse_overrides


def run(arguments: Namespace) -> None:
    """Do it."""
    print(probe(parse_overrides(arguments.overrides)).table(), end="")


COMMAND = Command(
    name="probe",
    summary="measure frozen features: nearest neighbours, linear, few labels",
    details="""Keys: model (a run, a model folder or a checkpoint file) and data.path (labelled) have to be given;
weights (student, teacher, random), layers ([] = mean of all, [2] = one, final = the encoder's output),
each (true = each layer alone too), result (block, ffn),
poolings ([mean, grid, class-token]), probes ([knn, linear, few]), labels, draws, neighbours, baselines, seed,
train, val, test (parts of the data), out (a .json file), batch_size, precision, device.

The raw input and the same network untrained stand beside every figure; baselines=false leaves them out.""",
    example="d2v probe model=run data.path=fashion-mnist\nd2v probe model=run data.path=photos each=true",
    add_arguments=takes_keys,
    run=run,
)
