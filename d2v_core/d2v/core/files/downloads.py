"""Download a file that others publish: resumed after an interruption, checked, and renamed when it is complete."""

import hashlib
import sys
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from d2v.core.files.atomic import write_text

_CHUNK = 1 << 20
_GIGABYTE = 1e9
_SECONDS_BETWEEN_LINES = 1.0
_SILENCE = 60.0  # seconds without a byte
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206

Progress = Callable[[int, int | None], None]


class ShownProgress:
    """Progress of a download in one line on the terminal, at most once a second.

    Args:
        name: what is downloaded.
    """

    def __init__(self, name: str) -> None:
        self.name, self.shown_at = name, 0.0

    def __call__(self, done: int, size: int | None) -> None:
        """Show the number of bytes that are there, and that of the whole file."""
        end = done == size
        if not sys.stderr.isatty() or (time.monotonic() - self.shown_at < _SECONDS_BETWEEN_LINES and not end):
            return
        self.shown_at = time.monotonic()
        whole = "" if size is None else f" of {size / _GIGABYTE:.2f}"
        line = f"\r\x1b[K{self.name}: {done / _GIGABYTE:.2f}{whole} GB"
        print(line, end="\n" if end else "", file=sys.stderr, flush=True)


class DownloadError(RuntimeError):
    """A file cannot be downloaded, or is not the one that was expected. The message names its address and the fix.

    Args:
        message: of the error.
        status: the server's answer, such as 404, if it refused.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DigestError(DownloadError):
    """A file was downloaded, and has another digest than expected."""


def download(address: str, target: Path, *, digest: str | None, progress: Progress | None = None) -> None:
    """Download a file, unless it exists. Until it is complete and checked, it is named `TARGET.part`.

    A later call goes on where an interrupted one stopped. It starts again if the server cannot send parts of files, or
    says that its file has changed; without a digest also if it says nothing about changes. A file with another digest
    is deleted.

    Args:
        address: `http://` or `https://`.
        target: file to write; missing parent folders are created.
        digest: name of the algorithm, a colon, and the expected digest in hexadecimal: `sha256:...`, `md5:...`; None =
            any.
        progress: called with the number of bytes that are there, and with that of the whole file, None = unknown.

    Raises:
        ValueError: if the address is of another kind.
        DownloadError: if the server cannot be reached, refuses, or stops early.
        DigestError: if the digest differs.
        OSError: if the file cannot be written.

    >>> download("ftp://host/file", Path("file"), digest="md5:00")
    Traceback (most recent call last):
    ValueError: 'ftp://host/file' is not an address that starts with http:// or https://
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is not an address that starts with http:// or https://")
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    _fetch(address, part, progress or (lambda done, size: None), checked=digest is not None)
    if digest is not None:
        _check(address, part, digest)
    part.replace(target)
    _version_file(part).unlink(missing_ok=True)


def file_digest(path: Path, algorithm: str) -> str:
    """The digest of a file in hexadecimal.

    Args:
        path: of the file.
        algorithm: such as `sha256`.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _fetch(address: str, part: Path, progress: Progress, *, checked: bool) -> None:
    """Append what is missing; an existing part that the server cannot add to is left to the check of its digest."""
    version = _version_file(part)
    known = version.read_text() if version.exists() else ""
    done = part.stat().st_size if part.exists() and (known or checked) else 0
    wanted = {"Range": f"bytes={done}-", **({"If-Range": known} if known else {})} if done else {}
    try:
        answer: HTTPResponse = urlopen(Request(address, headers=wanted), timeout=_SILENCE)
    except HTTPError as error:
        if done and error.code == _RANGE_NOT_SATISFIABLE:
            if not checked:
                part.unlink()
                _fetch(address, part, progress, checked=checked)
            return
        raise DownloadError(f"{address}: the server answers {error.code} {error.reason}", status=error.code) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{address} cannot be reached: {reason}") from error
    with answer:
        if answer.status != _PARTIAL_CONTENT:
            done = 0
            _keep_version(answer, version)
        size = None if answer.length is None else done + answer.length
        with part.open("ab" if done else "wb") as file:
            while chunk := _chunk(address, answer, done):
                file.write(chunk)
                done += len(chunk)
                progress(done, size)
    if size is not None and done < size:
        raise _lost(address, f"{done} of {size}")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _keep_version(answer: HTTPResponse, file: Path) -> None:
    """Keep what identifies the server's file, so that a part is never continued with another file's bytes."""
    tag = answer.headers.get("ETag", "")
    version = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    if version:
        write_text(file, version)
    else:
        file.unlink(missing_ok=True)


def _chunk(address: str, answer: HTTPResponse, done: int) -> bytes:
    try:
        return answer.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _lost(address, str(done)) from error


def _lost(address: str, done: str) -> DownloadError:
    return DownloadError(f"{address}: the connection was lost after {done} bytes; run the same again to go on")


def _check(address: str, part: Path, digest: str) -> None:
    algorithm, _, expected = digest.partition(":")
    found = file_digest(part, algorithm)
    if found != expected:
        part.unlink()
        _version_file(part).unlink(missing_ok=True)
        raise DigestError(
            f"{address} has the {algorithm} digest {found}, expected was {expected}; {part} is deleted, run the same "
            "again to download it afresh"
        )
