"""Writing that a crash leaves done or undone: under another name, flushed, then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def publish(unfinished: Path, target: Path) -> None:
    """Make a folder of files appear under its name, whole, after all of it is on the disk."""
    for path in (*unfinished.iterdir(), unfinished):
        _flush(path)
    unfinished.rename(target)
    _flush(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; folders above it are made.

    Raises:
        OSError: if it cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`."""
    with replacing(path) as stream:
        stream.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes a name when the block ends, and leaves what has the name if an error ends it.

    Folders above it are made.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's, which nobody else may read: this one has the permissions of any new file.
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with unfinished.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
