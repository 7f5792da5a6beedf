"""Models in other people's files: whoever is installed and knows the format converts them."""

from pathlib import Path

from d2v.core.foreign import Converted, ForeignFileError, convert_file
from d2v.core.modality import modalities


def convert_published(path: Path) -> Converted:
    """The model of a checkpoint file, by the first converter of an installed modality that knows it.

    Raises:
        ForeignFileError: if nobody knows it, or it cannot be read.
        OSError: likewise.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile(prefix="d2v", suffix=".pt") as file:
    ...     convert_published(Path(file.name))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    d2v.core.foreign.torch_files.ForeignFileError: ...: it is empty
    """
    broken = modalities.broken()
    records = [modalities.load(name) for name in modalities.names() if name not in broken]
    try:
        return convert_file([converter for record in records for converter in record.converters], path)
    except ForeignFileError as error:
        if not broken:
            raise
        reasons = "; ".join(map(str, broken.values()))
        raise ForeignFileError(path, f"{str(error).removeprefix(f'{path}: ')}; not asked: {reasons}") from error
