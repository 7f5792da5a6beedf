"""Tasks of text to ids, in this process or in several, and the results in the order of the tasks."""

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from d2v.core.data import name_keys
from d2v.core.data.workers import forking
from d2v.text.corpus.lines import Bad, lines_of
from d2v.text.corpus.text_files import Piece
from d2v.text.corpus.texts import Task, Texts
from d2v.text.corpus.token_file import type_of_ids
from d2v.text.tokenizing import Tokenizer

_ALONE = 1 << 23  # bytes of text below which processes cost more than they save
_KEYED = 1 << 16  # characters of a document that decide whether it is held out


@frozen
class Result:
    """The lines of a task.

    Args:
        ids: of all lines, each with `</s>`.
        sizes: tokens of each line.
        keys: `name_keys` of the documents, the first of which may have begun before; empty if they are not wanted.
        bad: file or document, and reason, of what is not text.
    """

    ids: NDArray[Any]
    sizes: NDArray[np.int32]
    keys: NDArray[np.int64]
    bad: tuple[tuple[str, str], ...]


def encoded(
    source: Texts, position: Any, tokenizer: Tokenizer, workers: int, *, keyed: bool
) -> Iterator[tuple[Task, Result]]:
    """Yield the tasks of a source after a position, with their ids, in order.

    Args:
        source: the text.
        position: see `Texts.tasks`.
        tokenizer: encodes the lines.
        workers: number of processes; little text is encoded in this one.
        keyed: whether documents get keys.
    """
    size = source.size
    if workers <= 1 or (size is not None and size < _ALONE):
        for task in source.tasks(position):
            yield task, _encoded(tokenizer, task.pieces, keyed)
        return
    # Copies of this process share its memory; new ones would import torch, which takes 400 MB each.
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(tokenizer, keyed))
    waiting: deque[tuple[Task, Future[Result]]] = deque()
    try:
        with forking():
            pool.submit(_encode, ()).result()  # copies are made before the source starts threads
        for task in source.tasks(position):
            waiting.append((task, pool.submit(_encode, task.pieces)))
            if len(waiting) > 3 * workers:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(task: Task, result: "Future[Result]") -> tuple[Task, Result]:
    return task, result.result()


_own: dict[str, Any] = {}  # of a worker process


def _start(tokenizer: Tokenizer, keyed: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the main process, which ends this one
    _own.update(tokenizer=tokenizer, keyed=keyed)


def _encode(pieces: Sequence[Piece]) -> Result:
    return _encoded(_own["tokenizer"], pieces, _own["keyed"])


def _encoded(tokenizer: Tokenizer, pieces: Sequence[Piece], keyed: bool) -> Result:
    lines: list[str] = []
    bad: list[tuple[str, str]] = []
    for piece in pieces:
        for line in lines_of(piece):
            if isinstance(line, Bad):
                bad.append((piece.name, line.reason))
            else:
                lines.append(line)
    ids, sizes = tokenizer.encode_file_lines(lines)
    keys = name_keys(_beginnings(lines)).numpy() if keyed else np.empty(0, np.int64)
    return Result(ids.astype(type_of_ids(tokenizer.vocabulary_size)), sizes, keys, tuple(bad))


def _beginnings(lines: Sequence[str]) -> Iterator[str]:
    """The beginning of each document."""
    found: list[str] = []
    size = 0
    for line in (*lines, ""):
        if line and size < _KEYED:
            found.append(line[:_KEYED])
            size += len(line) + 1
        elif not line and found:
            yield "\n".join(found)[:_KEYED]
            found, size = [], 0
