"""Blocks of tokens that a model reads, by the rules of the original toolkit; only their places are computed."""

from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2v.text.corpus.token_file import TokenFile

BreakMode = Literal["none", "complete", "complete_doc", "eos"]
"""
none: blocks of equal length, across lines and documents.
complete: whole lines, as many as fit.
complete_doc: whole lines of one document, as many as fit; empty lines, which separate documents, are left out.
eos: one line each.
"""
_LINES = 1 << 20  # whose next block is computed together


class Blocks(Protocol):
    """Places of blocks in a token file."""

    def __len__(self) -> int: ...

    def span(self, id: int) -> tuple[int, int]:
        """Place of the first token of a block, and after its last."""
        ...

    def lengths(self) -> Tensor:
        """Tokens of each block, Int `n`."""
        ...

    @property
    def longest(self) -> int:
        """Tokens of the longest block."""
        ...


def blocks_of(tokens: TokenFile, size: int, mode: BreakMode, *, cut: bool = False) -> Blocks:
    """Cut the tokens of a file into blocks.

    Args:
        tokens: the file.
        size: tokens of a block, at least 1. Except in mode none, a longer line is a block of its own.
        mode: see `BreakMode`.
        cut: whether such a line is cut into blocks of `size` instead.
    """
    if mode == "none":
        return _Equal(tokens.num_tokens, size)
    if mode == "eos":
        starts = tokens.starts(0, tokens.num_lines)
        return _Placed(*_cut(starts, starts + tokens.sizes, size if cut else None))
    starts, ends = _packed(tokens, size, by_document=mode == "complete_doc")
    return _Placed(*_cut(starts, ends, size if cut else None))


class _Equal:
    """Blocks of equal length; the last one has the rest."""

    def __init__(self, num_tokens: int, size: int) -> None:
        self._num_tokens, self._size = num_tokens, size

    def __len__(self) -> int:
        return -(-self._num_tokens // self._size)

    def span(self, id: int) -> tuple[int, int]:
        start = id * self._size
        return start, min(start + self._size, self._num_tokens)

    def lengths(self) -> Tensor:
        found = torch.full((len(self),), self._size, dtype=torch.int32)
        found[-1:] = self._num_tokens - (len(self) - 1) * self._size
        return found

    @property
    def longest(self) -> int:
        return min(self._size, self._num_tokens)


class _Placed:
    """Blocks by their places."""

    def __init__(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self._starts, self._ends = starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    def span(self, id: int) -> tuple[int, int]:
        return int(self._starts[id]), int(self._ends[id])

    def lengths(self) -> Tensor:
        return torch.from_numpy((self._ends - self._starts).astype(np.int32))

    @property
    def longest(self) -> int:
        return int((self._ends - self._starts).max(initial=0))


def _cut(
    starts: NDArray[np.int64], ends: NDArray[np.int64], size: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if size is None or int((ends - starts).max(initial=0)) <= size:
        return starts, ends
    parts = -(-(ends - starts) // size)
    first = np.repeat(parts.cumsum() - parts, parts)
    begins = np.repeat(starts, parts) + (np.arange(len(first)) - first) * size
    return begins, np.minimum(begins + size, np.repeat(ends, parts))


def _packed(tokens: TokenFile, size: int, *, by_document: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends of blocks of whole lines.

    A block ends where the next line would not fit, so the start of each depends on all before it. What follows a line
    is computed for many lines at once; only the way from block to block is walked.
    """
    firsts: list[NDArray[np.int64]] = []
    lasts: list[NDArray[np.int64]] = []
    line = 0
    for low in range(0, tokens.num_lines, _LINES):
        high = min(low + _LINES, tokens.num_lines)
        own = np.arange(low, high)
        # As a line has at least one token, a block that starts before `high` ends in this range.
        starts = tokens.starts(low, high + size + 1)
        ends = np.maximum(low - 1 + np.searchsorted(starts, starts[: high - low] + size, side="right"), own + 1)
        is_empty = np.asarray(tokens.sizes[low:high]) == 1
        following = ends
        if by_document:
            ends = np.minimum(ends, _next_empty(tokens, is_empty, low, high, int(ends[-1])))
            following = np.where(is_empty, own + 1, ends)
        steps, found, skipped = following.tolist(), [], is_empty.tolist() if by_document else None
        while line < high:
            if skipped is None or not skipped[line - low]:
                found.append(line)
            line = steps[line - low]
        chosen = np.asarray(found, dtype=np.int64)
        firsts.append(starts[chosen - low])
        lasts.append(starts[ends[chosen - low] - low])
    return np.concatenate([*firsts, np.empty(0, np.int64)]), np.concatenate([*lasts, np.empty(0, np.int64)])


def _next_empty(tokens: TokenFile, is_empty: NDArray[np.bool_], low: int, high: int, last: int) -> NDArray[np.int64]:
    """The first empty line at or after each of the lines from `low` to `high`; `last` is far enough for all of them."""
    beyond = high + np.flatnonzero(np.asarray(tokens.sizes[high:last]) == 1)[:1]
    places = np.concatenate([low + np.flatnonzero(is_empty), beyond, [max(last, high)]])
    found: NDArray[np.int64] = places[np.searchsorted(places, np.arange(low, high))]
    return found
