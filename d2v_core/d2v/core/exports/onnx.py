"""The form `onnx`: the encoder as `model.onnx`, for ONNX Runtime and other programs."""

from pathlib import Path

import torch
from torch import nn

from d2v.core.description import Description
from d2v.core.exports.graph import refusing, traced
from d2v.core.foreign import ExportForm

_LARGEST = 1_800_000_000  # a file of ONNX holds less than 2 GiB; weights of larger models are beside it


def write(folder: Path, module: nn.Module, description: Description) -> Description:
    """Write the graph, its description and the files of the preparation.

    Raises:
        ValueError: as `traced`, or if ONNX lacks a part of the computation.
    """
    one = traced(module, description)
    with refusing("be written as ONNX"):
        program = torch.onnx.export(
            one.program, dynamo=True, verbose=False, input_names=list(one.inputs), output_names=list(one.outputs)
        )
        assert program is not None  # with a path, nothing would be returned
        size = sum(tensor.nbytes for tensor in one.program.state_dict.values())
        program.save(folder / "model.onnx", external_data=size > _LARGEST)
    one.write_files(folder)
    return one.description


FORM = ExportForm(
    summary="the encoder for ONNX Runtime", write=write, requires=("onnx", "onnxscript"), extra="d2v[export]"
)
