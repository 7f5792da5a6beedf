"""Scores of a transformer language model for the prefixes that a search asks for, in batches and with bounded memory.

A search asks for one word after one prefix at a time. Each new prefix is remembered until the first question about it.
The network then runs on it together with the newest prefixes that have no scores yet, since those are likely to be
asked for next.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs.validators import ge
from torch import Tensor

from d2v.audio.decoding.packages import flashlight
from d2v.audio.decoding.transformer_lm import TransformerLM
from d2v.core.validators import check

Prefix = tuple[int, ...]
_BATCH = 32
_MOST_BYTES = 1 << 28


class PrefixScores:
    """Natural log-probabilities of words after prefixes.

    Args:
        lm: the language model.
        numbers: number of each word of the search in the dictionary of the language model; None = it lacks the word.
        start: number of the symbol before the first word, which is the end of the sentence as well.
        batch_size: prefixes in a run of the network.
        most_bytes: memory for kept scores; those not used for longest are dropped, and computed again if needed.

    >>> lm = TransformerLM(num_words=6, embed_dim=8, depth=1, num_heads=2).eval()
    >>> scores = PrefixScores(lm, [4, 5, None], start=2)
    >>> prefix = scores.longer(scores.first, 0)
    >>> prefix, scores.log_prob(prefix, 2)
    ((2, 4), -inf)
    """

    def __init__(
        self,
        lm: TransformerLM,
        numbers: Sequence[int | None],
        *,
        start: int,
        batch_size: int = _BATCH,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        check(ge(1), batch_size=batch_size, most_bytes=most_bytes)
        self.lm = lm
        self.end = len(numbers)
        """Number of the end of the sentence, after those of the words."""
        self.first: Prefix = (start,)
        """The prefix of a new sentence."""
        self.runs = 0
        """Runs of the network so far."""
        self._numbers = [*numbers, start]
        known = [number for number in self._numbers if number is not None]
        self._columns = torch.tensor(known)
        positions = iter(range(len(known)))
        self._position = [None if number is None else next(positions) for number in self._numbers]
        self.batch_size = batch_size
        self._most = max(batch_size, most_bytes // (4 * len(known)))
        self._kept: OrderedDict[Prefix, np.ndarray[Any, np.dtype[np.float32]]] = OrderedDict()
        self._waiting: dict[Prefix, None] = {}

    def new_sentence(self) -> None:
        """Forget the prefixes that nothing was asked about; kept scores stay."""
        self._waiting.clear()

    def longer(self, prefix: Prefix, word: int) -> Prefix:
        """Return the prefix with one more word of the search; it is expected to be asked about."""
        number = self._numbers[word]
        if number is None or word == self.end:
            return prefix
        found = (*prefix, number)
        if found not in self._kept:
            self._waiting[found] = None
        return found

    def log_prob(self, prefix: Prefix, word: int) -> float:
        """Return the log-probability of a word after a prefix; -inf if the language model lacks the word."""
        position = self._position[word]
        if position is None:
            return -float("inf")
        if prefix not in self._kept:
            self._run(prefix)
        self._kept.move_to_end(prefix)
        return float(self._kept[prefix][position])

    @torch.no_grad()
    def _run(self, prefix: Prefix) -> None:
        self._waiting.pop(prefix, None)
        batch = [prefix]
        while self._waiting and len(batch) < self.batch_size:
            batch.append(self._waiting.popitem()[0])
        self._waiting.clear()  # older ones have most likely left the beam
        lengths = torch.tensor([len(one) for one in batch])
        words = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
        for row, one in zip(words, batch, strict=True):
            row[: len(one)] = torch.tensor(one)
        device = self.lm.proj.weight.device
        found: Tensor = self.lm(words.to(device), lengths.to(device) - 1)[:, self._columns.to(device)]
        self.runs += 1
        for one, row in zip(batch, found.cpu().numpy(), strict=True):
            self._kept[one] = row
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


def for_search(scores: PrefixScores) -> Any:
    """A language model of flashlight-text with these scores.

    Raises:
        MissingExtraError: if flashlight-text is not installed.
    """
    decoder = flashlight()

    class Bridge(decoder.LM):  # type: ignore[misc, name-defined]  # its base is found when it is needed
        """States are objects of the search; each stands for one prefix."""

        def __init__(self) -> None:
            decoder.LM.__init__(self)
            self.network = scores.lm
            self.prefixes: dict[Any, Prefix] = {}

        def start(self, start_with_nothing: bool) -> Any:
            del start_with_nothing
            scores.new_sentence()
            state = decoder.LMState()
            self.prefixes = {state: scores.first}
            return state

        def score(self, state: Any, word: int) -> tuple[Any, float]:
            prefix, child = self.prefixes[state], state.child(word)
            found = scores.log_prob(prefix, word)
            if child not in self.prefixes:
                self.prefixes[child] = scores.longer(prefix, word)
            return child, found

        def finish(self, state: Any) -> tuple[Any, float]:
            return self.score(state, scores.end)

    return Bridge()
