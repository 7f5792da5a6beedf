"""What a stored model is, and where its tensors belong, whether they fit or not."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from attrs import frozen

from d2v.core.description import Description
from d2v.core.files.folder import (
    WEIGHTS,
    is_foreign,
    model_folder,
    read_description,
    stored_weights,
    without_weights,
)
from d2v.core.files.model_cache import located, pretrained_of
from d2v.core.files.published import plan_published
from d2v.core.foreign.torch_files import naming_file
from d2v.core.state_dict import misfits, shapes_of


@frozen(kw_only=True)
class Inspected:
    """What is known of a stored model before its weights are read.

    Args:
        path: of its file or folder.
        format: name of the format.
        description: of the model.
        precision: number of tensors of each type.
        ignored: names of tensors that the model does not need, although the format has them.
        problems: names of tensors without a place, and of places without a tensor, by the kind of problem; see
            `misfits`.
    """

    path: Path
    format: str
    description: Description
    precision: Mapping[str, int]
    ignored: Sequence[str]
    problems: Mapping[str, Sequence[str]]


def inspect_model(source: str | os.PathLike[str], *, pretrained: str | os.PathLike[str] | None = None) -> Inspected:
    """What a model is, without reading its weights.

    Arguments and errors are those of `open_model`, except that tensors need not fit.
    """
    path = located(source)
    if is_foreign(path):
        beside = pretrained_of(source) if pretrained is None else pretrained
        plan = plan_published(path, None if beside is None else lambda: located(beside))
        return Inspected(
            path=path,
            format=plan.format,
            description=plan.converted.description,
            precision=_counts(tensor.dtype for tensor in plan.tensors.values()),
            ignored=plan.ignored,
            problems=plan.problems,
        )
    folder = model_folder(path)
    description = read_description(folder)
    with naming_file(folder / WEIGHTS):
        _, tensors = stored_weights(folder)
    with torch.random.fork_rng(devices=[]):
        module = without_weights(folder, description, tensors)
    return Inspected(
        path=folder,
        format="model folder",
        description=description,
        precision=_counts(tensor.dtype for tensor in tensors.values()),
        ignored=(),
        problems=misfits(
            shapes_of(module.state_dict()), {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        ),
    )


def _counts(types: Iterable[torch.dtype]) -> dict[str, int]:
    return dict(Counter(str(one).removeprefix("torch.") for one in types).most_common())
