"""Token files while they are written: an interrupted run goes on, and the files appear when all are complete."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from attrs import asdict, define, field, frozen

from d2v.core.data import escaped
from d2v.core.files.atomic import write_text
from d2v.text.corpus.token_file import TokenWriter, unfinished_sizes

JOURNAL = ".unfinished.json"
"""File of a folder with unfinished token files."""
_FORM = 1  # of the journal
_LISTED = 20
_ENDS = (".bin", ".idx")  # in the order in which they appear: without an index, nothing is there


@define
class Encoded:
    """What was written of a split.

    Args:
        tokens: number of tokens, `</s>` included.
        lines: number of lines, empty ones included.
        documents: number of documents.
        skipped: number of lines (or whole files) left out, by file.
        reasons: the first of them, as messages.
        empty: files without text.
    """

    tokens: int = 0
    lines: int = 0
    documents: int = 0
    skipped: Counter[str] = field(factory=Counter, converter=Counter)
    reasons: list[str] = field(factory=list)
    empty: list[str] = field(factory=list)

    def skip(self, path: str, reason: str) -> None:
        """Count a line that is left out."""
        self.skipped[path] += 1
        if len(self.reasons) < _LISTED:
            self.reasons.append(f"{escaped(path)}: {reason}")


@define
class State:
    """How far the text has been written.

    Args:
        position: place in the source; None = at its beginning.
        last: tokens of the last line, 1 = no document is open.
        held_out: whether the open document is held out.
        of_file: lines of the open file.
        splits: what was written, by split.
    """

    position: Any = None
    last: int = 1
    held_out: bool = False
    of_file: int = 0
    splits: dict[str, Encoded] = field(factory=dict)


@frozen
class Recorded:
    """What an interrupted run left.

    Args:
        state: how far it came.
        before: what its source said of the text up to there, see `Texts.before`.
        complete: whether only names are missing.
    """

    state: State
    before: Any
    complete: bool


class Unfinished:
    """The files of several splits while they are written.

    `save` records a state from which a later run with the same `made` goes on; what was written after it is cut off.

    Args:
        folder: of the token files.
        made: JSON values that differ if the same text would give other files.
        dtype: of the ids.
    """

    def __init__(self, folder: Path, made: Any, dtype: "np.dtype[Any]") -> None:
        self._folder, self._made, self._dtype = folder, made, dtype
        self._open = ExitStack()
        self._writers: dict[str, TokenWriter] = {}
        self._files: list[BinaryIO] = []

    def recorded(self) -> Recorded | None:
        """What an interrupted run left; None = nothing that can be used."""
        try:
            values = json.loads((self._folder / JOURNAL).read_text())
            if values["form"] != _FORM or values["made"] != json.loads(json.dumps(self._made)):
                return None
            state = State(**values["state"])
            state.splits = {name: Encoded(**one) for name, one in values["state"]["splits"].items()}
            found = Recorded(state, values["before"], values["complete"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return found if found.complete or all(map(self._has, state.splits.items())) else None

    def start(self, state: State) -> None:
        """Open the files of all splits, to go on after a state."""
        for split, done in state.splits.items():
            content, index = (self._opened(split, end, new=state.position is None) for end in _ENDS)
            self._files += [content, index]
            self._writers[split] = TokenWriter(
                content, index, self._dtype, num_lines=done.lines, num_tokens=done.tokens
            )

    def add(self, split: str, ids: Any, sizes: Any) -> None:
        """Append lines to a split, see `TokenWriter.add`."""
        self._writers[split].add(ids, sizes)

    def save(self, state: State, before: Any, *, complete: bool = False) -> None:
        """Record a state, after everything that was written is on the disk."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        values = {"form": _FORM, "made": self._made, "before": before, "complete": complete, "state": asdict(state)}
        write_text(self._folder / JOURNAL, json.dumps(values))

    def publish(self, state: State, before: Any) -> None:
        """Complete the files, and give those with text their names."""
        for split, writer in self._writers.items():
            if state.splits[split].documents:
                writer.finish()
        self.save(state, before, complete=True)
        self.close()
        self.finish(state.splits)

    def finish(self, splits: Mapping[str, Encoded]) -> None:
        """Rename files that are complete; a run that was interrupted here left some of them."""
        for end in _ENDS:
            for split, done in splits.items():
                if done.documents and self._path(split, end).exists():
                    self._path(split, end).replace(self._folder / f"{split}{end}")
        self.discard()

    def discard(self) -> None:
        """Delete what is not published."""
        self.close()
        for path in self._folder.glob(".*.unfinished"):
            path.unlink()
        (self._folder / JOURNAL).unlink(missing_ok=True)

    def abandon(self) -> None:
        """Close all files after an error; they are kept if a state is recorded, from which a later run goes on."""
        self.close()
        if not (self._folder / JOURNAL).exists():
            self.discard()

    def close(self) -> None:
        """Close all files."""
        self._open.close()
        self._files.clear()

    def _opened(self, split: str, end: str, *, new: bool) -> BinaryIO:
        path = self._path(split, end)
        return self._open.enter_context(path.open("w+b") if new else path.open("r+b"))

    def _path(self, split: str, end: str) -> Path:
        return self._folder / f".{split}{end}.unfinished"

    def _has(self, one: tuple[str, Encoded]) -> bool:
        split, done = one
        wanted = unfinished_sizes(done.lines, done.tokens, self._dtype)
        return all(
            self._path(split, end).is_file() and self._path(split, end).stat().st_size >= size
            for end, size in zip(_ENDS, wanted, strict=True)
        )
