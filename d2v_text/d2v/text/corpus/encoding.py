"""Turn text files into token files: several processes encode, one writes in the order of the text."""

import multiprocessing
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from d2v.core.data import DataError, escaped
from d2v.text.corpus.lines import Bad, lines_of
from d2v.text.corpus.text_files import NotTextError, Piece, is_json, pieces, total_size
from d2v.text.corpus.token_file import TokenWriter, writing_tokens
from d2v.text.tokenizing import EOS, Tokenizer

_ALONE = 1 << 23  # bytes of text below which processes cost more than they save
_LISTED = 20


@define
class Encoded:
    """What was written of the text files of a split.

    Args:
        tokens: number of tokens, `</s>` included.
        lines: number of lines, empty ones included.
        documents: number of documents: lines in a row without an empty one between them.
        skipped: number of lines (or whole files) left out, by file.
        reasons: the first of them, as messages.
        empty: files without text.
    """

    tokens: int = 0
    lines: int = 0
    documents: int = 0
    skipped: Counter[str] = field(factory=Counter)
    reasons: list[str] = field(factory=list)
    empty: list[str] = field(factory=list)

    def skip(self, path: str, reason: str) -> None:
        """Count a line that is left out."""
        self.skipped[path] += 1
        if len(self.reasons) < _LISTED:
            self.reasons.append(f"{escaped(path)}: {reason}")


@frozen
class _Task:
    """A piece of a file; without a piece, the file has ended, or `reason` says why it is not read."""

    path: str
    piece: Piece | None
    reason: str = ""


@frozen
class _Result:
    ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    bad: tuple[Bad, ...]


def encode_files(
    files: Sequence[str],
    stem: Path,
    tokenizer: Tokenizer,
    *,
    text_field: str = "text",
    skip_invalid: bool = False,
    workers: int = 1,
) -> Encoded:
    """Write the token file of text files; the result does not depend on the number of processes.

    Each line gives its tokens and `</s>`. An empty line separates documents, as do the ends of files and of JSON lines.

    Args:
        files: text files, in order.
        stem: path of the new files without `.bin` and `.idx`; they appear complete, or not at all.
        tokenizer: encodes the lines.
        text_field: field of JSON lines that holds the text.
        skip_invalid: whether to leave out lines that are not text; otherwise the first of them is an error.
        workers: processes that encode; small files are encoded in this one.

    Raises:
        DataError: naming the file and the byte, if something is not text and not skipped; if there is no text at all.
        OSError: if the files cannot be written.
    """
    if total_size(files) < _ALONE:
        workers = 1
    done = Encoded()
    with writing_tokens(stem, tokenizer.vocabulary_size) as writer:
        written = 0  # lines before the current file
        last = 1
        for task, result in _results(files, tokenizer, text_field, workers):
            if result is not None:
                _say_bad(done, task.path, [bad.reason for bad in result.bad], skip_invalid)
                last = _add(writer, done, result, last)
                continue
            if task.reason:
                _say_bad(done, task.path, [task.reason], skip_invalid)
            elif writer.num_lines == written:
                done.empty.append(task.path)
            elif last != 1:
                last = _add(writer, done, _END, last)
            written = writer.num_lines
        if not done.documents:
            names = ", ".join(map(escaped, list(files)[:3]))
            raise DataError(f"there is no text in {names}{' ...' if len(files) > 3 else ''}")
        done.tokens, done.lines = writer.num_tokens, writer.num_lines
    return done


_END = _Result(np.array([EOS]), np.array([1], np.int32), ())


def _add(writer: TokenWriter, done: Encoded, result: _Result, last: int) -> int:
    """Write lines and return the length of the last one."""
    if not len(result.sizes):
        return last
    writer.add(result.ids, result.sizes)
    before = np.concatenate([[last], result.sizes[:-1]])
    done.documents += int(((before == 1) & (result.sizes > 1)).sum())
    return int(result.sizes[-1])


def _say_bad(done: Encoded, path: str, reasons: Sequence[str], skip_invalid: bool) -> None:
    for reason in reasons:
        if not skip_invalid:
            raise DataError(f"{escaped(path)}: {reason}; --skip-invalid leaves out what is not text")
        done.skip(path, reason)


def _tasks(files: Sequence[str]) -> Iterator[_Task]:
    for path in files:
        reason = ""
        try:
            for piece in pieces(path):
                yield _Task(path, piece)
        except NotTextError as error:
            reason = str(error)
        yield _Task(path, None, reason)


def _results(
    files: Sequence[str], tokenizer: Tokenizer, text_field: str, workers: int
) -> Iterator[tuple[_Task, _Result | None]]:
    if workers <= 1:
        for task in _tasks(files):
            yield task, None if task.piece is None else _encoded(tokenizer, task, text_field)
        return
    # Copies of this process share its memory; new ones would import torch, which takes 400 MB each.
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(tokenizer, text_field))
    waiting: deque[tuple[_Task, Future[_Result] | None]] = deque()
    try:
        for task in _tasks(files):
            waiting.append((task, None if task.piece is None else pool.submit(_encode, task)))
            if len(waiting) > 3 * workers:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(task: _Task, result: "Future[_Result] | None") -> tuple[_Task, _Result | None]:
    return task, None if result is None else result.result()


_own: dict[str, Any] = {}  # of a worker process


def _start(tokenizer: Tokenizer, text_field: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the main process, which ends this one
    _own.update(tokenizer=tokenizer, text_field=text_field)


def _encode(task: _Task) -> _Result:
    return _encoded(_own["tokenizer"], task, _own["text_field"])


def _encoded(tokenizer: Tokenizer, task: _Task, text_field: str) -> _Result:
    assert task.piece is not None
    lines: list[str] = []
    bad: list[Bad] = []
    for line in lines_of(task.piece, text_field if is_json(task.path) else None):
        if isinstance(line, Bad):
            bad.append(line)
        else:
            lines.append(line)
    end = np.array([EOS])
    parts = [part for ids in tokenizer.encode_lines(lines) for part in (ids, end)]
    sizes = np.array([len(ids) + 1 for ids in parts[::2]], np.int32)
    return _Result(np.concatenate(parts) if parts else np.empty(0, np.int64), sizes, tuple(bad))
