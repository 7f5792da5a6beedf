"""Token files of given ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2v.text.corpus.token_file import TokenWriter, type_of_ids


@contextmanager
def writing_tokens(stem: Path, vocabulary_size: int) -> Iterator[TokenWriter]:
    """Write `NAME.bin` and `NAME.idx`."""
    with Path(f"{stem}.bin").open("w+b") as content, Path(f"{stem}.idx").open("w+b") as index:
        writer = TokenWriter(content, index, type_of_ids(vocabulary_size))
        yield writer
        writer.finish()
