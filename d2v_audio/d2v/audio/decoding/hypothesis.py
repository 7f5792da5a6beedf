"""The result of a decoder: one transcript of a recording."""

from typing import Any

import torch
from attrs import evolve, field, frozen

from d2v.audio.tasks.words import words_of
from d2v.core.labels import Symbols


@frozen(kw_only=True)
class Hypothesis:
    """One transcript of a recording.

    Args:
        path: symbol of each of the t frames; blanks and repeats as in CTC.
        tokens: symbols without blanks and repeats. Those of a beam search start and end with silence, which the search
            adds before the first and after the last frame.
        timesteps: where each token starts: a frame for the best path; in a beam search, a position in the path with its
            two silences, so frame + 1.
        words: of the lexicon; None = the tokens spell the words.
        score: sum of the scores of frames, language model, words and silence.
    """

    path: tuple[int, ...] = field(repr=False)
    tokens: tuple[int, ...]
    timesteps: tuple[int, ...] = field(repr=False)
    words: tuple[str, ...] | None = None
    score: float

    def text(self, labels: Symbols) -> str:
        """Return the transcript with spaces between words."""
        return labels.text(self.tokens) if self.words is None else " ".join(self.words)

    def timed_words(self, labels: Symbols, seconds: float) -> list[dict[str, Any]]:
        """Return the words with start and end in seconds.

        Args:
            labels: the dictionary.
            seconds: duration of a frame.

        >>> letters = Symbols(("-", "|", "H", "I"), blank="-", boundary="|")
        >>> one = Hypothesis(path=(0, 2, 3, 1), tokens=(2, 3, 1), timesteps=(1, 2, 3), words=("hi",), score=-1.0)
        >>> one.text(letters), one.timed_words(letters, 0.02)
        ('hi', [{'word': 'hi', 'start': 0.02, 'end': 0.06}])
        """
        spelled = words_of(torch.tensor(self.path), labels)
        if self.words is not None and len(self.words) == len(spelled):
            spelled = [evolve(one, text=word) for one, word in zip(spelled, self.words, strict=True)]
        return [word.timed(seconds) for word in spelled]
