"""Third-party checkpoints: the installed modalities convert the formats that they know."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from d2v.core.foreign import Converted, Converter, ForeignFileError, convert_file
from d2v.core.foreign.converter import FilePlan, plan_file
from d2v.core.modality import modalities

T = TypeVar("T")


def convert_published(path: Path, pretrained: Callable[[], Path] | None = None) -> Converted:
    """The model of a checkpoint file or a folder of Hugging Face, by the first converter that knows its format.

    Args:
        path: of the file or folder.
        pretrained: gives the path of the pretrained model; called for a fine-tuned file that lacks the configuration
            of its encoder.

    Raises:
        ForeignFileError: if no converter knows the format, or the file is broken.
        OSError: if the file cannot be read.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile(prefix="d2v", suffix=".pt") as file:
    ...     convert_published(Path(file.name))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    d2v.core.foreign.torch_files.ForeignFileError: ...: it is empty
    """
    return _with_converters(lambda converters: convert_file(converters, path, pretrained=pretrained), path)


def plan_published(path: Path, pretrained: Callable[[], Path] | None = None) -> FilePlan:
    """What such a file holds, also if its tensors do not fit; arguments and errors as in `convert_published`."""
    return _with_converters(lambda converters: plan_file(converters, path, pretrained=pretrained), path)


def _with_converters(call: Callable[[list[Converter]], T], path: Path) -> T:
    broken = modalities.broken()
    records = [modalities.load(name) for name in modalities.names() if name not in broken]
    try:
        return call([converter for record in records for converter in record.converters])
    except ForeignFileError as error:
        if not broken:
            raise
        reasons = "; ".join(map(str, broken.values()))
        raise ForeignFileError(path, f"{str(error).removeprefix(f'{path}: ')}; not tried: {reasons}") from error
