"""What token files are made of: text in tasks of about a megabyte, in an order that is always the same."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from d2v.text.corpus import text_files
from d2v.text.corpus.text_files import NotTextError, Piece, pieces, total_size

_BATCH = 1 << 20  # bytes


@frozen(kw_only=True)
class Task:
    """Text that is encoded at a time.

    Args:
        split: that it belongs to.
        pieces: the text.
        position: place after this task, as JSON values, from where the source can go on; None = not here.
        ended: file that ends with this task, and with it a document; "" = none.
        bad: files or documents that are not text, each with the reason.
    """

    split: str
    pieces: tuple[Piece, ...] = ()
    position: Any = None
    ended: str = ""
    bad: tuple[tuple[str, str], ...] = ()


class Texts(Protocol):
    """A source of text."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of its splits."""
        ...

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes of text or of files, about; None = unknown."""
        ...

    def tasks(self, position: Any = None) -> Iterator[Task]:
        """Yield the text after a place, None = from the beginning.

        Raises:
            DataError: if it cannot be read.
        """
        ...

    def before(self, position: Any) -> Any:
        """JSON values that differ if what is before a place has changed."""
        ...


@frozen
class TextFiles:
    """Text files, each of one or more documents.

    Args:
        files: paths by split.
        field: field of JSON lines that holds the text.
    """

    files: Mapping[str, Sequence[str]]
    field: str = "text"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.files)

    @property
    def name(self) -> str:
        """The first files."""
        paths = [path for _, path in self._all]
        return ", ".join(paths[:3]) + (" ..." if len(paths) > 3 else "")

    @property
    def size(self) -> int | None:
        """Bytes of all files, as they are stored."""
        return total_size([path for _, path in self._all])

    def tasks(self, position: Any = None) -> Iterator[Task]:
        """Yield the pieces of each file, then its end; a place is the number of a file and of pieces of it."""
        first, done = position or (0, 0)
        for number, (split, path) in enumerate(self._all[first:], first):
            bad: tuple[tuple[str, str], ...] = ()
            try:
                for count, piece in enumerate(pieces(path, self.field), 1):
                    if count > done:
                        yield Task(split=split, pieces=(piece,), position=[number, count])
            except NotTextError as error:
                bad = ((path, str(error)),)
            yield Task(split=split, position=[number + 1, 0], ended=path, bad=bad)
            done = 0

    def before(self, position: Any) -> Any:
        """Paths, sizes and times of the files up to a place, and how they are read."""
        number, done = position
        return [
            self.field,
            text_files.BLOCK,
            [[split, path, *_state(path)] for split, path in self._all[: number + bool(done)]],
        ]

    @property
    def _all(self) -> list[tuple[str, str]]:
        return [(split, path) for split, paths in self.files.items() for path in paths]


def _state(path: str) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def batches(
    split: str, documents: Iterable[Piece | tuple[str, str]], position: Callable[[bool], Any]
) -> Iterator[Task]:
    """Yield tasks of many documents that are files or records of their own.

    Args:
        split: that they belong to.
        documents: their pieces, or the name of one that is not text and the reason.
        position: function that returns the place after the document that it was called at; its argument is whether
            that is the last one.

    >>> found = batches("train", [Piece(b"one", name="a", whole=True), ("b", "it is UTF-16")], lambda last: 2)
    >>> [(len(task.pieces), task.bad, task.position) for task in found]
    [(1, (('b', 'it is UTF-16'),), 2)]
    """
    pieces: list[Piece] = []
    bad: list[tuple[str, str]] = []
    size = 0
    for one in documents:
        if not isinstance(one, Piece):
            bad.append(one)
            continue
        pieces.append(one)
        size += len(one.data)
        if size >= _BATCH:
            place = position(False) if one.ends else None
            yield Task(split=split, pieces=tuple(pieces), position=place, bad=tuple(bad))
            pieces, bad, size = [], [], 0
    yield Task(split=split, pieces=tuple(pieces), position=position(True), bad=tuple(bad))
