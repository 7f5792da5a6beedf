"""The form `torch-export`: the encoder as `model.pt2`, which `torch.export.load` runs without this package."""

from pathlib import Path

import torch
from torch import nn

from d2v.core.description import Description
from d2v.core.exports.graph import refusing, traced
from d2v.core.foreign import ExportForm


def write(folder: Path, module: nn.Module, description: Description) -> Description:
    """Write the graph, its description and the files of the preparation.

    Raises:
        ValueError: as `traced`.
    """
    one = traced(module, description)
    with refusing("be saved by torch.export"):
        torch.export.save(one.program, folder / "model.pt2")
    one.write_files(folder)
    return one.description


FORM = ExportForm(summary="the encoder as a program of torch.export", write=write)
