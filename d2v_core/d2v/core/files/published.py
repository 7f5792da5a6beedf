"""Third-party checkpoints: the installed modalities convert the formats that they know."""

from collections.abc import Callable
from pathlib import Path

from d2v.core.foreign import Converted, ForeignFileError, convert_file
from d2v.core.modality import modalities


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
    broken = modalities.broken()
    records = [modalities.load(name) for name in modalities.names() if name not in broken]
    try:
        return convert_file(
            [converter for record in records for converter in record.converters], path, pretrained=pretrained
        )
    except ForeignFileError as error:
        if not broken:
            raise
        reasons = "; ".join(map(str, broken.values()))
        raise ForeignFileError(path, f"{str(error).removeprefix(f'{path}: ')}; not tried: {reasons}") from error
