"""`d2v extract`: features of files."""

from argparse import Namespace

from d2v.core.cli.command import Command, takes_keys
from d2v.core.jobs import extract
from d2v.core.recipes import parse_overrides


def run(arguments: Namespace) -> None:
    """Do it."""
    done = extract(parse_overrides(arguments.overrides))
    print(f"features of shape {done.shape} in {done.out}, names in {done.names}")


COMMAND = Command(
    name="extract",
    summary="write features of files, for other programs",
    details="""Keys: model, data.path and out (.safetensors or .npy) have to be given;
pooling (mean, grid, class-token, tokens), layers ([] = mean of all, [2] = one, final = the encoder's output),
result (block, ffn), weights (student, teacher), split, batch_size, precision, device.
data.* changes how the input is prepared: data.size=448 reads larger images where the positions of the model
allow it. The samples' names go to a .txt beside the features.""",
    example="d2v extract model=run data.path=photos out=features.safetensors\n"
    "d2v extract model=run data.path=photos out=patches.npy pooling=tokens layers=final",
    add_arguments=takes_keys,
    run=run,
)
