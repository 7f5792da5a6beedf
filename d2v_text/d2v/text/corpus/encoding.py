"""Turn text into token files: several processes encode, one writes in the order of the text."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from d2v.core.data import DataError, HoldOut, escaped
from d2v.core.files.folder_lock import FolderLock, InUseError
from d2v.text.corpus.processes import Result, encoded
from d2v.text.corpus.texts import Task, Texts
from d2v.text.corpus.token_file import token_splits, type_of_ids
from d2v.text.corpus.unfinished import JOURNAL, Encoded, Recorded, State, Unfinished
from d2v.text.tokenizing import EOS, Tokenizer

TRAIN, VAL = "train", "val"
_SAVE_EVERY = 20.0  # seconds


def encode(
    source: Texts,
    dest: Path,
    tokenizer: Tokenizer,
    *,
    skip_invalid: bool = False,
    workers: int = 1,
    hold_out: HoldOut | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Encoded]:
    """Write the token files of text. The result depends neither on the number of processes nor on interruptions.

    Each line gives its tokens and `</s>`. An empty line separates documents, as do the ends of files and of records.
    What an interrupted call has written is used by the next one with the same text, tokenizer and hold-out.

    Args:
        source: the text.
        dest: folder of the new files, which appear when all are complete; it is created.
        tokenizer: encodes the lines.
        skip_invalid: whether to leave out lines that are not text; otherwise the first of them is an error.
        workers: processes that encode; little text is encoded in this one.
        hold_out: which documents of the only split `train` become the split `val`, by a hash of their first 65,536
            characters; None = none.
        say: called with a sentence when the work of an interrupted call is used.

    Returns:
        What was written, by split.

    Raises:
        DataError: naming the file and the byte, if something is not text and not skipped; if a split has no text, or
            exists; if the folder is in use.
        OSError: if the files cannot be written.
    """
    splits = source.splits
    if hold_out is not None:
        if splits != (TRAIN,):
            raise DataError(
                f"the text has the splits {', '.join(splits)} already: documents are held out of {TRAIN} only"
            )
        splits = (TRAIN, VAL)
    made = [
        type(source).__name__,  # places of one kind of source mean nothing to another
        [[name, hashlib.sha256(content).hexdigest()] for name, content in sorted(tokenizer.files().items())],
        list(splits),
        None if hold_out is None else [hold_out.fraction, hold_out.seed],
    ]
    dest.mkdir(parents=True, exist_ok=True)
    try:
        lock = FolderLock(dest)
    except InUseError as error:
        raise DataError(f"{escaped(str(dest))}: another command is writing token files there") from error
    unfinished = Unfinished(dest, made, type_of_ids(tokenizer.vocabulary_size))
    try:
        recorded = unfinished.recorded()
        if recorded is not None and not _goes_on(source, recorded, skip_invalid):
            recorded = None
        if recorded is not None and recorded.complete:
            unfinished.finish(recorded.state.splits)
            return _checked(dest, recorded.state, hold_out)
        refuse_taken(dest, splits)
        state = State(splits={split: Encoded() for split in splits})
        if recorded is not None:
            state = recorded.state
            say(f"{escaped(str(dest))}: going on after {sum(one.tokens for one in state.splits.values())} tokens")
        elif (dest / JOURNAL).exists():
            say(f"{escaped(str(dest))}: the text or the options have changed, so unfinished files are written anew")
            unfinished.discard()
        _Job(source, unfinished, state, hold_out, skip_invalid).run(tokenizer, workers)
        return _checked(dest, state, hold_out)
    finally:
        unfinished.close()
        lock.release(delete=True)


def refuse_taken(dest: Path, splits: Sequence[str]) -> None:
    """Check that a folder has no token files of these splits.

    Raises:
        DataError: naming the split.
    """
    if taken := sorted(set(token_splits(dest)) & set(splits)):
        raise DataError(
            f"{escaped(str(dest))} has the split {taken[0]} already; delete its .bin and .idx to make it again"
        )


def _goes_on(source: Texts, recorded: Recorded, skip_invalid: bool) -> bool:
    """Whether the text that was written is still the same, and would be written again."""
    left_out = any(one.skipped for one in recorded.state.splits.values())
    return source.before(recorded.state.position) == recorded.before and (skip_invalid or not left_out)


def _checked(dest: Path, state: State, hold_out: HoldOut | None) -> dict[str, Encoded]:
    if hold_out is not None and not state.splits[VAL].documents:
        raise DataError(
            f"{escaped(str(dest))} has the split {TRAIN} only: none of its {state.splits[TRAIN].documents} documents "
            f"was held out at a fraction of {hold_out.fraction:g}. Empty lines separate documents; write validation "
            f"text with --split {VAL}"
        )
    return state.splits


class _Job:
    """Writes what a source has, in order."""

    def __init__(
        self, source: Texts, unfinished: Unfinished, state: State, hold_out: HoldOut | None, skip_invalid: bool
    ) -> None:
        self._source, self._unfinished, self._state = source, unfinished, state
        self._hold_out, self._skip_invalid = hold_out, skip_invalid

    def run(self, tokenizer: Tokenizer, workers: int) -> None:
        """Write everything after the state, and publish the files."""
        state, position, saved = self._state, self._state.position, time.monotonic()
        self._unfinished.start(state)
        try:
            for task, result in encoded(self._source, position, tokenizer, workers, keyed=self._hold_out is not None):
                bad = self._allowed((*task.bad, *result.bad))
                state.position = None  # an error in the middle of a task leaves nothing to go on from
                for name, reason in bad:
                    state.splits[task.split].skip(name, reason)
                self._write(task, result)
                state.position = position = task.position
                if position is not None and time.monotonic() - saved >= _SAVE_EVERY:
                    self._unfinished.save(state, self._source.before(position))
                    saved = time.monotonic()
        except BaseException:
            if state.position is not None:
                with suppress(OSError):  # the disk may be full, which is the error then
                    self._unfinished.save(state, self._source.before(state.position))
            self._unfinished.abandon()
            raise
        for split in self._source.splits:
            if not state.splits[split].documents:
                self._unfinished.discard()
                if any(one.documents for one in state.splits.values()) and self._hold_out is not None:
                    raise DataError(
                        f"no document of {escaped(self._source.name)} is left to train on: all are held out"
                    )
                raise DataError(f"there is no text in {escaped(self._source.name)}")
        self._unfinished.publish(state, self._source.before(position))

    def _allowed(self, bad: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        if bad and not self._skip_invalid:
            name, reason = bad[0]
            raise DataError(f"{escaped(name)}: {reason}; --skip-invalid leaves out what is not text")
        return bad

    def _write(self, task: Task, result: Result) -> None:
        state = self._state
        self._add(task.split, result)
        if not task.ended:
            return
        if not state.of_file and not task.bad:
            state.splits[task.split].empty.append(task.ended)
        elif state.last != 1:
            self._add(task.split, _END)
        state.of_file = 0

    def _add(self, split: str, result: Result) -> None:
        if not len(result.sizes):
            return
        state = self._state
        before = np.concatenate([[state.last], result.sizes[:-1]])
        begins = (before == 1) & (result.sizes > 1)
        if self._hold_out is None:
            self._append(split, result.ids, result.sizes, begins)
        else:
            held = self._held(self._hold_out, result, begins)
            of_tokens = np.repeat(held, result.sizes)
            for name, lines, tokens in ((split, ~held, ~of_tokens), (VAL, held, of_tokens)):
                self._append(name, result.ids[tokens], result.sizes[lines], begins[lines])
            state.held_out = bool(held[-1])
        state.last = int(result.sizes[-1])
        state.of_file += len(result.sizes)

    def _append(
        self, split: str, ids: NDArray[np.unsignedinteger], sizes: NDArray[np.int32], begins: NDArray[np.bool_]
    ) -> None:
        done = self._state.splits[split]
        self._unfinished.add(split, ids, sizes)
        done.tokens += len(ids)
        done.lines += len(sizes)
        done.documents += int(begins.sum())

    def _held(self, hold_out: HoldOut, result: Result, begins: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which lines are held out; lines before the first document of the result are part of the open one."""
        keys = result.keys[len(result.keys) - int(begins.sum()) :]
        sides = hold_out.below(torch.from_numpy(keys)).numpy()
        found: NDArray[np.bool_] = np.concatenate([[self._state.held_out], sides])[begins.cumsum()]
        return found


_END = Result(np.array([EOS]), np.array([1], np.int32), np.empty(0, np.int64), ())
