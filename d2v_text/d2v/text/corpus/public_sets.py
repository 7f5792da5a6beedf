"""Text of data sets that Hugging Face's `datasets` reads, from their hub or from a folder, as a stream."""

import io
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from attrs.validators import min_len

from d2v.core.data import DataError
from d2v.core.registry import MissingExtraError
from d2v.core.suggestions import nearest
from d2v.text.corpus.text_files import NotTextError, Piece, document_pieces
from d2v.text.corpus.texts import Task, batches

if TYPE_CHECKING:
    import datasets

EXTRA = "d2v[datasets]"


@frozen
class PublicSet:
    """A data set whose rows are documents.

    Args:
        name: on the hub, or a folder of files.
        config: name of a part of it, such as a language; None = its only one.
        split: the split to read.
    """

    name: str = field(validator=min_len(1))
    config: str | None = None
    split: str = "train"

    @classmethod
    def named(cls, text: str) -> "PublicSet":
        """Read `NAME`, `NAME:CONFIG` or `NAME:CONFIG:SPLIT`.

        Raises:
            DataError: if it has another form.

        >>> PublicSet.named("wikimedia/wikipedia:20231101.en")
        PublicSet(name='wikimedia/wikipedia', config='20231101.en', split='train')
        >>> PublicSet.named("books::test").split
        'test'
        """
        parts = text.split(":")
        if not parts[0] or len(parts) > 3:
            raise DataError(f"--dataset {text!r} must be NAME, NAME:CONFIG or NAME:CONFIG:SPLIT")
        name, config, split = (*parts, "", "")[:3]
        return cls(name, config or None, split or "train")

    def __str__(self) -> str:
        return ":".join([self.name, self.config or "", self.split]).removesuffix(":train").removesuffix(":")


@frozen
class PublicSets:
    """The rows of data sets, one set after the other.

    Args:
        sets: the data sets.
        column: with the text.
        into: name of the split that is made of them.

    Raises:
        MissingExtraError: if `datasets` is not installed.
    """

    sets: tuple[PublicSet, ...] = field(validator=min_len(1))
    column: str = "text"
    into: str = "train"

    def __attrs_post_init__(self) -> None:
        if find_spec("datasets") is None:
            raise MissingExtraError(
                f"--dataset needs datasets, which is not installed: pip install '{EXTRA}'", name="datasets"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """The only split."""
        return (self.into,)

    @property
    def name(self) -> str:
        """The names of the data sets."""
        return ", ".join(map(str, self.sets))

    @property
    def size(self) -> int | None:
        """Unknown."""
        return None

    def tasks(self, position: Any = None) -> Iterator[Task]:
        """Yield the rows; a place is the number of a data set, rows of it, and the state of its stream.

        Raises:
            DataError: if a data set cannot be read, or has no such column of text.
        """
        first, done, state = position or (0, 0, None)
        for number, one in enumerate(self.sets[first:], first):
            stream = _opened(one)
            if state is not None:
                stream.load_state_dict(state)
            rows = _Rows(one, stream, self.column, done)

            def place(last: bool, number: int = number, rows: _Rows = rows) -> Any:
                return [number + 1, 0, None] if last else [number, rows.count, rows.stream.state_dict()]

            yield from batches(self.into, rows.documents(), place)
            done, state = 0, None

    def before(self, position: Any) -> Any:
        """Names of the data sets and of the column; what the hub has under them is taken to stay the same."""
        del position
        return [list(map(str, self.sets)), self.column]


class _Rows:
    """The rows of a stream, counted."""

    def __init__(self, one: PublicSet, stream: "datasets.IterableDataset", column: str, count: int) -> None:
        self.one, self.stream, self.column, self.count = one, stream, column, count

    def documents(self) -> Iterator[Piece | tuple[str, str]]:
        for row in self._read():
            name = f"{self.one}, row {self.count}"
            self.count += 1
            text = row.get(self.column, self)
            if text is self:
                raise DataError(
                    f"{self.one} has no column {self.column!r}; it has {', '.join(map(repr, row))}; "
                    f"name one with --field{nearest(self.column, list(row))}"
                )
            if text is None:
                yield name, "it has no text"
            elif not isinstance(text, str):
                raise DataError(
                    f"{self.one}: the column {self.column!r} has values of type {type(text).__name__}, not text"
                )
            else:
                try:
                    yield from document_pieces(io.BytesIO(text.encode(errors="surrogatepass")), name)
                except NotTextError as error:
                    yield name, str(error)

    def _read(self) -> Iterator[dict[str, Any]]:
        rows = iter(self.stream)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # whatever the reader of its files raises
                raise DataError(f"{self.one}, row {self.count} cannot be read: {error}") from error
            yield row


def _opened(one: PublicSet) -> "datasets.IterableDataset":
    import datasets

    try:
        return datasets.load_dataset(one.name, one.config, split=one.split, streaming=True)
    except Exception as error:  # of many kinds, such as ValueError, OSError and those of the hub
        raise DataError(f"{one} cannot be opened: {error}") from error
