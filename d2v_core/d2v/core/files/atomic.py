"""Atomic writing: a file is written under a temporary name, flushed, then renamed."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def publish(unfinished: Path, target: Path) -> None:
    """Rename a finished folder to its final name, after all of its files are on disk."""
    for path in (*unfinished.iterdir(), unfinished):
        _flush(path)
    unfinished.rename(target)
    _flush(target.parent)


@contextmanager
def unfinished_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder under a temporary name, for `publish`; it is removed after an error."""
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # the disk may be full
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file atomically; missing parent folders are created.

    Raises:
        OSError: if it cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Like `write_text`, for bytes."""
    with replacing(path) as stream:
        stream.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that replaces `path` when the block ends; after an error, the old file is kept.

    Missing parent folders are created.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's, which only the owner may read: this file has the permissions of any new file.
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
