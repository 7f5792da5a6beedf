"""OpenWebText (Gokaslan and Cohen 2019): read its archive as a stream, without unpacking it.

The archive holds many archives `urlsf_subset*.xz`, each with documents as text files. Nothing of it is written to the
disk by name, so names and links in it cannot point anywhere.
"""

import lzma
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from attrs import frozen

from d2v.core.data import DataError, escaped
from d2v.text.corpus.text_files import NotTextError, Piece, document_pieces
from d2v.text.corpus.texts import Task, batches

ADDRESS = "https://zenodo.org/record/3834942/files/openwebtext.tar.xz"
DIGEST = "sha256:9fe39d154c5bc67da8c359415372b79510eb1e2edb0d035fe4f7fc3a732b9336"
_VALIDATION = "urlsf_subset20"


@frozen
class OpenWebText:
    """The documents of the archive. Those of the parts `urlsf_subset20*` are for validation.

    Args:
        archive: path of `openwebtext.tar.xz`.
    """

    archive: Path

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return ("train", "val")

    @property
    def name(self) -> str:
        """The path of the archive."""
        return str(self.archive)

    @property
    def size(self) -> int | None:
        """Bytes of the archive."""
        return self.archive.stat().st_size

    def tasks(self, position: Any = None) -> Iterator[Task]:
        """Yield the documents; a place is a number of members of the archive.

        Raises:
            DataError: if the archive is damaged, or is that of something else.
        """
        done = position or 0
        found = False
        try:
            with lzma.open(self.archive) as stream:
                for number, (name, member) in enumerate(_files(stream, ".xz"), 1):
                    found = True
                    if number > done:
                        split = "val" if PurePosixPath(name).name.startswith(_VALIDATION) else "train"
                        yield from batches(split, _documents(name, member), partial(_at_end, number))
        except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise DataError(f"{escaped(self.name)} cannot be read: {error}") from error
        if not found:
            raise DataError(f"{escaped(self.name)} has no archives *.xz: it is the archive of something else")

    def before(self, position: Any) -> Any:
        """Name and size of the archive, whose digest was checked."""
        return [self.archive.name, self.size]


def _at_end(number: int, last: bool) -> int | None:
    return number if last else None


def _documents(name: str, member: IO[bytes]) -> Iterator[Piece | tuple[str, str]]:
    with lzma.open(member) as stream:
        for own, file in _files(stream, ".txt"):
            whole = f"{name}/{own}"
            try:
                yield from document_pieces(file, whole)
            except NotTextError as error:
                yield whole, str(error)


def _files(stream: IO[bytes], ending: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Regular files of a tar archive, in order, with memory for one at a time; all else is left out."""
    with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 18) as tar:
        while (member := tar.next()) is not None:
            if member.isreg() and member.name.endswith(ending):
                file = tar.extractfile(member)
                assert file is not None  # a regular file
                yield member.name, file
            tar.members = []  # type: ignore[attr-defined]  # it would remember all of them
