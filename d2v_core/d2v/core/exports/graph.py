"""An encoder as one graph of tensors, for programs without this package.

The graph has one path for all inputs: padding is always looked at, and attention is the plain form, without kernels of
a device (`nn/kernels.py`).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from d2v.core.description import Description
from d2v.core.exports.encoder import encoder_alone
from d2v.core.exports.hugging_face import preparation, write_config
from d2v.core.files.own_class import KEY, own_config
from d2v.core.modality import modalities
from d2v.core.model import BackboneConfig, Batch, Student
from d2v.core.probes.encoding import evaluating

MASK, OUTPUT, OUTPUT_MASK = "attention_mask", "last_hidden_state", "output_attention_mask"


@frozen(kw_only=True)
class TracedEncoder:
    """An encoder as a graph.

    Args:
        program: from the inputs, in their order, to the outputs.
        inputs: shapes of the inputs by name, with names of axes of any size: `batch`, `length`.
        outputs: names of the outputs.
        description: of the encoder.
    """

    program: ExportedProgram
    inputs: dict[str, list[int | str]]
    outputs: tuple[str, ...]
    description: Description

    def write_files(self, folder: Path) -> None:
        """Write what the graph does not say: names of inputs and outputs, the description, the preparation."""
        values = own_config(self.description)[KEY]
        write_config(folder / "config.json", {"inputs": self.inputs, "outputs": list(self.outputs), KEY: values})
        for name, content in (self.description.all_files() | preparation(self.description)).items():
            (folder / name).write_bytes(content)


def traced(module: nn.Module, description: Description) -> TracedEncoder:
    """The encoder of a model as a graph.

    Inputs and outputs are those of `d2v.hugging_face`: raw input, and for sequences `attention_mask` `b raw` of
    integers, 1 = valid. The outputs are `last_hidden_state` `b (e+t) d`, extra tokens first, and for sequences
    `output_attention_mask` `b (e+t)`. All axes named in `inputs` may have any size.

    Raises:
        ValueError: if the modality does not say how its input is passed, or the encoder cannot be traced.
    """
    encoder, description = encoder_alone(module, description)
    modality, student = description.modality, description.student
    form = modalities.load(modality).input if modality in modalities.names() else None
    if form is None or not isinstance(student, BackboneConfig):
        raise ValueError(f"this {modality} encoder cannot be traced: it does not say how its input is passed")
    adapter = student.adapters[modality]
    example = form.example(adapter)
    batch = Dim("batch", min=1)
    inputs: dict[str, list[int | str]] = {form.name: ["batch", *example.shape[1:]]}
    arguments: tuple[Tensor, ...] = (example,)
    dynamic: tuple[dict[int, Dim], ...] = ({0: batch},)
    outputs: tuple[str, ...] = (OUTPUT,)
    if form.lengths is not None:
        shortest, longest = form.lengths(adapter)
        axes = {0: batch, 1: Dim("length", min=shortest, max=longest)}
        mask = torch.ones(example.shape[:2], dtype=torch.long)
        mask[1, -(example.shape[1] // 4) :] = 0
        inputs = {form.name: ["batch", "length", *example.shape[2:]], MASK: ["batch", "length"]}
        arguments, dynamic, outputs = (example, mask), (axes, axes), (OUTPUT, OUTPUT_MASK)
    whole = _Graph(encoder, modality)
    with refusing("be traced by torch.export"), evaluating(whole), torch.no_grad():
        program = torch.export.export(whole, arguments, dynamic_shapes=dynamic)
    return TracedEncoder(program=program, inputs=inputs, outputs=outputs, description=description)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Report any error of an exporter in the block as one line; its warnings are for developers and not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # exporters raise errors of many kinds for what they lack
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"this encoder cannot {what}: {reason}") from error


class _Graph(nn.Module):
    encoder: Student

    def __init__(self, encoder: Student, modality: str) -> None:
        super().__init__()
        self.encoder, self.modality = encoder, modality

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Any:
        padding = None if attention_mask is None else attention_mask == 0
        encoded = self.encoder.encode(Batch(source=inputs, padding=padding, modality=self.modality))
        return encoded.x if encoded.padding is None else (encoded.x, (~encoded.padding).long())
