"""How well sequences of symbols were told: error rates of words and characters."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from d2v.core.labels import Symbols
from d2v.core.model import Batch
from d2v.core.scores.scores import Scores, nothing_scored

_SHOWN = 5


class SymbolScorer:
    """Keeps the texts of a split: what was told, and what is right.

    Error rates are edits (insertions, deletions, replacements) by the length of what is right, in percent, over the
    whole split: `wer` of words and `cer` of characters where the symbols have a boundary between words, else `uer` of
    symbols.

    Args:
        labels: the dictionary.

    >>> import torch
    >>> scorer = SymbolScorer(Symbols(("|", "A", "B"), boundary="|"))
    >>> labels, lengths = torch.tensor([[1, 2, 0, 2]]), torch.tensor([4])
    >>> scorer.update([[1, 2, 0, 1]], Batch(source=torch.zeros(1, 9), labels=labels, label_lengths=lengths))
    >>> scorer.compute().metrics()
    {'wer': 50.0, 'cer': 25.0}
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset({"wer", "cer", "uer"})

    def __init__(self, labels: Symbols) -> None:
        self.labels = labels
        self.told: list[str] = []
        """Text of each sample, as it was told."""
        self.truths: list[str] = []
        """Text of each sample, as it is."""

    def update(self, outputs: Sequence[Sequence[int]], batch: Batch) -> None:
        """Count a batch.

        Args:
            outputs: numbers of the symbols told for each of the b samples; decoded, so without blanks.
            batch: with labels `b s` and their lengths.

        Raises:
            ValueError: if there are more or fewer sequences than samples, or a number is none of a symbol.
        """
        truths = self.labels.sequences(batch)
        if len(outputs) != len(truths):
            raise ValueError(f"{len(outputs)} sequences were told for {len(truths)} samples")
        wrong = [number for row in outputs for number in row if not 0 <= number < self.labels.num_outputs]
        if wrong:
            raise ValueError(f"outputs hold {wrong[0]}, the number of none of {self.labels.num_outputs} symbols")
        self.told += map(self.labels.text, outputs)
        self.truths += map(self.labels.text, truths)

    def merge_state(self, others: Iterable["SymbolScorer"]) -> None:
        """Count what others have counted too."""
        for other in others:
            self.told += other.told
            self.truths += other.truths

    def compute(self) -> Scores:
        """The scores of all that was counted.

        Raises:
            ValueError: if nothing was.
        """
        from torchmetrics.functional.text import char_error_rate, word_error_rate

        if not self.truths:
            raise nothing_scored()
        # Without a boundary each symbol of a text is a word of its own.
        rates = {"uer": word_error_rate}
        if self.labels.boundary is not None:
            rates = {"wer": word_error_rate, "cer": char_error_rate}
        if not any(self.truths):
            return Scores(values={}, reasons=dict.fromkeys(rates, "what is right holds no symbols"), text=self._table())
        values = {name: 100 * float(rate(self.told, self.truths)) for name, rate in rates.items()}
        return Scores(values=values, text=self._table())

    def _table(self) -> str:
        """How much there was, and the first mistakes."""
        unit = "symbols" if self.labels.boundary is None else "words"
        count = sum(len(text.split()) for text in self.truths)
        pairs = [(told, truth) for told, truth in zip(self.told, self.truths, strict=True) if told != truth]
        lines = [f"{len(self.truths)} samples, {count} {unit}, {len(pairs)} samples with mistakes"]
        for told, truth in pairs[:_SHOWN]:
            lines += [f"right: {truth}", f"told:  {told}"]
        return "\n".join(lines)
