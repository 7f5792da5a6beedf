"""Write the manifests of the field for a folder of recordings.

The original takes files in the order in which the file system lists them, so its manifests differ between machines.
Here files are sorted first; the random rule is the same.
"""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from attrs.validators import and_, ge, le

from d2v.audio.recordings.endings import RECORDINGS
from d2v.audio.recordings.lengths import measured_lengths
from d2v.audio.recordings.reading import Reader
from d2v.core.data import DataError, escaped
from d2v.core.data.folders import Medium, gathered_files
from d2v.core.files.atomic import write_bytes
from d2v.core.validators import check


def write_manifests(
    root: Path,
    dest: Path,
    *,
    extension: str = "flac",
    valid_fraction: float = 0.01,
    path_must_contain: str = "",
    seed: int = 42,
) -> tuple[dict[Path, int], list[str]]:
    """Write `train.tsv` and, unless the fraction is 0, `valid.tsv`.

    Args:
        root: folder of the recordings, searched at any depth.
        dest: folder to write to; it is created.
        extension: of the recordings.
        valid_fraction: approximate fraction of the recordings in `valid.tsv`, from 0 to 1.
        path_must_contain: text that the whole path of a recording must contain.
        seed: seed of the selection.

    Returns:
        Number of recordings by file, and the recordings that are left out, since a header cannot be read or a name has
        a line break.

    Raises:
        DataError: if there are no recordings.
        ValueError: if the fraction is not from 0 to 1.

    >>> write_manifests(Path("recordings"), Path("manifests"), valid_fraction=10)
    Traceback (most recent call last):
    ValueError: 'valid_fraction' must be <= 1: 10
    """
    check(and_(ge(0), le(1)), valid_fraction=valid_fraction)
    lines, broken = _measured(root.resolve(), extension, path_must_contain)
    written = {}
    for name, part in zip(("train", "valid"), divided(lines, valid_fraction, seed), strict=True):
        if name == "train" or valid_fraction > 0:
            _write(dest / f"{name}.tsv", root.resolve(), part)
            written[dest / f"{name}.tsv"] = len(part)
    return written, broken


def write_manifest(file: Path, root: Path, *, extension: str = "flac") -> tuple[int, list[str]]:
    """Write one manifest of all recordings of a folder.

    Args:
        file: manifest to write.
        root: folder of the recordings, searched at any depth.
        extension: of the recordings.

    Returns:
        The number of recordings, and those that are left out, see `write_manifests`.

    Raises:
        DataError: if there are no recordings.
    """
    lines, broken = _measured(root.resolve(), extension, "")
    _write(file, root.resolve(), lines)
    return len(lines), broken


def _measured(root: Path, extension: str, path_must_contain: str) -> tuple[list[str], list[str]]:
    """Lines of the recordings below a root, and the paths of those that cannot be in a manifest."""
    medium = Medium(
        unit=RECORDINGS.unit,
        extensions=lambda: frozenset([extension.lower().removeprefix(".")]),
        recognises=lambda _: False,
        check=RECORDINGS.check,
    )
    paths = [os.path.join(root, path) for path in gathered_files(str(root), medium, labelled=False).paths]  # noqa: PTH118 - any bytes
    paths = [path for path in paths if path_must_contain in path]
    if not paths:
        raise DataError(f"no recording of {escaped(str(root))} has {path_must_contain!r} in its path")
    found = measured_lengths(len(paths), lambda id: -1 if "\n" in paths[id] else Reader().length(paths[id]))
    lengths = dict(zip(paths, found.tolist(), strict=True))
    lines = [f"{os.path.relpath(path, root)}\t{length}" for path, length in lengths.items() if length >= 0]
    return lines, [path for path, length in lengths.items() if length < 0]


def _write(file: Path, root: Path, lines: Sequence[str]) -> None:
    write_bytes(file, os.fsencode("\n".join([str(root), *lines, ""])))


def divided(lines: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Divide lines into those for training and those for validation, by the rule of the original.

    >>> divided("abcde", 0.5, 42)
    (['a', 'e'], ['b', 'c', 'd'])
    """
    numbers = random.Random(seed)
    train: list[str] = []
    valid: list[str] = []
    for line in lines:
        (train if numbers.random() > fraction else valid).append(line)
    return train, valid
