"""Switches of a run that change how blocks are computed: compiled, or recomputed in the backward pass."""

from torch import nn

from d2v.core.nn import ConvDecoder, TransformerBlock, TransformerEncoder
from d2v.core.train.heap import give_back


def compile_blocks(model: nn.Module) -> None:
    """Compile each transformer block in place, and the decoders of images; names of parameters stay.

    Blocks of one shape share their code. With the second length they are compiled for any length. The decoders of
    recordings and texts are left as they are, because torch would compile them again for each length.

    Raises:
        ValueError: if the model has no such parts.

    >>> compile_blocks(nn.Linear(2, 2))
    Traceback (most recent call last):
    ValueError: compile=true: a Linear has no TransformerBlock to compile
    """
    parts = [
        part
        for part in model.modules()
        if isinstance(part, TransformerBlock) or (isinstance(part, ConvDecoder) and part.dims == 2)
    ]
    if not parts:
        raise ValueError(f"compile=true: a {type(model).__name__} has no TransformerBlock to compile")
    for part in parts:
        part.compile()


def checkpoint_activations(model: nn.Module) -> None:
    """Keep only the inputs of the blocks for the backward pass, which computes the rest of each block again.

    On a CPU, what is saved goes back to the system: see `give_back`, which holds for the whole process.

    Raises:
        ValueError: if the model has no encoder of this library.

    >>> encoder = TransformerEncoder.stack(8, depth=1, num_heads=2)
    >>> checkpoint_activations(nn.Sequential(encoder))
    >>> encoder.checkpoint_activations
    True
    """
    encoders = [part for part in model.modules() if isinstance(part, TransformerEncoder)]
    if not encoders:
        raise ValueError(f"checkpoint_activations=true: a {type(model).__name__} has no TransformerEncoder")
    for encoder in encoders:
        encoder.checkpoint_activations = True
    if all(parameter.device.type == "cpu" for parameter in model.parameters()):
        give_back()
