"""Words of a CTC alignment with their times."""

from itertools import groupby
from typing import Any

from attrs import frozen
from torch import Tensor

from d2v.core.labels import Symbols


@frozen
class Word:
    """A word of a recording.

    Args:
        text: the word.
        first: first frame of its first symbol.
        last: last frame of its last symbol.
    """

    text: str
    first: int
    last: int

    def timed(self, seconds: float) -> dict[str, Any]:
        """Return word, start and end in seconds.

        Args:
            seconds: duration of a frame.

        >>> Word("HI", first=10, last=14).timed(0.02)
        {'word': 'HI', 'start': 0.2, 'end': 0.3}
        """
        start, end = round(self.first * seconds, 3), round((self.last + 1) * seconds, 3)
        return {"word": self.text, "start": start, "end": end}


def words_of(path: Tensor, labels: Symbols) -> list[Word]:
    """Return the words of an alignment in their order.

    Args:
        path: Long `t`, symbol of each frame; blanks and repeats as in CTC.
        labels: the dictionary; without a boundary, each symbol is a word.

    >>> import torch
    >>> letters = Symbols(("-", "|", "A", "B"), blank="-", boundary="|")
    >>> [(word.text, word.first, word.last) for word in words_of(torch.tensor([0, 2, 2, 0, 3, 1, 0, 3]), letters)]
    [('AB', 1, 4), ('B', 7, 7)]
    """
    left_out = {labels.blank, *labels.specials}
    found: list[Word] = []
    begins = True
    frame = 0
    for number, run in groupby(path.tolist()):
        first, frame = frame, frame + len(list(run))
        symbol = labels.symbols[number]
        if symbol in left_out:
            continue
        if symbol == labels.boundary:
            begins = True
        elif begins or labels.boundary is None:
            found.append(Word(symbol, first, frame - 1))
            begins = False
        else:
            found[-1] = Word(found[-1].text + symbol, found[-1].first, frame - 1)
    return found
