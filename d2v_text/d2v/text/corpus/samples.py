"""Blocks of tokens as samples, their batches, and the use of several folders in turn."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from d2v.core.data import BrokenSampleError, Identity, Plan, Request
from d2v.core.model import Batch
from d2v.text.corpus.blocks import Blocks
from d2v.text.corpus.token_file import TokenFile
from d2v.text.tokenizing import BOS, PADDING

_PROBES, _PROBE = 64, 2048  # places in a file that identify it, and tokens at each


class BlockSamples:
    """Blocks of one or several token files; an id counts the blocks of one file after those of another.

    Args:
        files: the token files.
        blocks: the blocks of each.
        vocabulary_size: number of ids; None = unknown. A block with another id is broken.
    """

    def __init__(self, files: Sequence[TokenFile], blocks: Sequence[Blocks], vocabulary_size: int | None) -> None:
        self._files, self._blocks, self._vocabulary_size = list(files), list(blocks), vocabulary_size
        self._ends = np.cumsum([len(one) for one in blocks])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def get(self, id: int, *, seed: int, epoch: int) -> Tensor:
        """Return `<s>` and the tokens of a block, Long `t`.

        Raises:
            BrokenSampleError: if an id is not in the vocabulary, or negative, or the file was cut off.
        """
        del seed, epoch
        tokens, (start, stop) = self._place(id)
        found = torch.empty(1 + stop - start, dtype=torch.long)
        found[0] = BOS
        found[1:] = torch.from_numpy(tokens.tokens(start, stop))
        smallest, largest = map(int, found.aminmax())
        if smallest < 0:
            raise BrokenSampleError(self.name(id), f"id {smallest} is negative")
        if self._vocabulary_size is not None and largest >= self._vocabulary_size:
            raise BrokenSampleError(
                self.name(id), f"id {largest} is not in the vocabulary of {self._vocabulary_size} ids"
            )
        return found

    def name(self, id: int) -> str:
        """File of a block, and its place in it, in tokens."""
        tokens, (start, stop) = self._place(id)
        return f"{tokens.stem}, tokens {start} to {stop - 1}"

    def identity(self) -> Identity:
        """The blocks, by their places and by samples of the tokens."""
        digest = hashlib.blake2b(digest_size=16)
        for tokens, blocks in zip(self._files, self._blocks, strict=True):
            digest.update(f"{tokens.num_tokens} {tokens.num_lines} {len(blocks)} {blocks.longest}\n".encode())
            for place in range(0, tokens.num_tokens, max(_PROBE, tokens.num_tokens // _PROBES)):
                digest.update(tokens.tokens(place, place + _PROBE).astype("<i8").tobytes())
        return Identity(samples=len(self), digest=digest.hexdigest())

    def _place(self, id: int) -> tuple[TokenFile, tuple[int, int]]:
        number = int(np.searchsorted(self._ends, id, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        self._files[number].check_whole()
        return self._files[number], self._blocks[number].span(id - first)


def collate_blocks(samples: list[Tensor], ids: Tensor) -> Batch:
    """Return a batch of token ids `b t`, padded to the longest.

    >>> collate_blocks([torch.tensor([0, 5]), torch.tensor([0, 5, 6])], torch.arange(2)).source
    tensor([[0, 5, 1],
            [0, 5, 6]])
    """
    source = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True, padding_value=PADDING)
    padding = source == PADDING
    return Batch(source=source, padding=padding if bool(padding.any()) else None, ids=ids)


@frozen
class InTurn:
    """Plans of several sets of samples, one for each epoch in turn; ids of a set follow those of the set before it.

    >>> from d2v.core.data import FixedPlan
    >>> plan = InTurn([FixedPlan(n=2, batch_size=2, shuffle=False), FixedPlan(n=3, batch_size=2, shuffle=False)])
    >>> [request.ids for epoch in range(3) for request in plan.requests(epoch)]
    [(0, 1), (2, 3), (0, 1)]
    """

    plans: Sequence[Plan]

    @property
    def n(self) -> int:
        """Number of samples of all sets."""
        return sum(plan.n for plan in self.plans)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.plans[0].seed

    @property
    def uneven(self) -> bool:
        """Whether some ranks have one batch more than others."""
        return any(plan.uneven for plan in self.plans)

    @property
    def units(self) -> int:
        """Units of a batch; the same in all sets."""
        return self.plans[0].units

    def num_batches(self, epoch: int, skip: int = 0) -> int:
        """Number of batches of this rank in an epoch after `skip` units."""
        return self.plans[epoch % len(self.plans)].num_batches(epoch, skip)

    def requests(self, epoch: int, first: int = 0, skip: int = 0) -> Iterator[Request]:
        """Yield the batches of an epoch after `skip` units, starting at index `first`."""
        number = epoch % len(self.plans)
        before = sum(plan.n for plan in self.plans[:number])
        for request in self.plans[number].requests(epoch, first, skip):
            yield Request(epoch=epoch, index=request.index, ids=tuple(before + id for id in request.ids))

    def replacement(self, id: int, *, epoch: int, attempt: int) -> int | None:
        """Return a replacement for a broken sample, from the same set."""
        number = epoch % len(self.plans)
        before = sum(plan.n for plan in self.plans[:number])
        found = self.plans[number].replacement(id - before, epoch=epoch, attempt=attempt)
        return None if found is None else before + found
