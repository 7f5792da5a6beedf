"""Scores of sequences of symbols: error rates of words and characters."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from d2v.core.labels import Symbols
from d2v.core.model import Batch
from d2v.core.scores.scores import Scores, nothing_scored

_SHOWN = 5


class SymbolScorer:
    """Keep the texts of a split: predictions and references.

    Error rates are edits (insertions, deletions, replacements) divided by the length of the reference, in percent, over
    the whole split: `wer` of words and `cer` of characters if the symbols have a word boundary, else `uer` of symbols.

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
        self.predictions: list[str] = []
        """Predicted text of each sample."""
        self.truths: list[str] = []
        """True text of each sample."""

    def update(self, outputs: Sequence[Sequence[int]], batch: Batch) -> None:
        """Add a batch.

        Args:
            outputs: predicted symbol numbers of each of the b samples; decoded, so without blanks.
            batch: with labels `b s` and their lengths.

        Raises:
            ValueError: if there are more or fewer sequences than samples, or a number is not that of a symbol.
        """
        truths = self.labels.sequences(batch)
        if len(outputs) != len(truths):
            raise ValueError(f"there are {len(outputs)} predicted sequences for {len(truths)} samples")
        wrong = [number for row in outputs for number in row if not 0 <= number < self.labels.num_outputs]
        if wrong:
            raise ValueError(f"outputs contain {wrong[0]}, but symbol numbers are 0 to {self.labels.num_outputs - 1}")
        self.predictions += map(self.labels.text, outputs)
        self.truths += map(self.labels.text, truths)

    def merge_state(self, others: Iterable["SymbolScorer"]) -> None:
        """Add the texts of other scorers."""
        for other in others:
            self.predictions += other.predictions
            self.truths += other.truths

    def compute(self) -> Scores:
        """The scores of all batches.

        Raises:
            ValueError: if there were none.
        """
        from torchmetrics.functional.text import char_error_rate, word_error_rate

        if not self.truths:
            raise nothing_scored()
        # Without a boundary, each symbol of a text is a separate word.
        rates = {"uer": word_error_rate}
        if self.labels.boundary is not None:
            rates = {"wer": word_error_rate, "cer": char_error_rate}
        if not any(self.truths):
            return Scores(values={}, reasons=dict.fromkeys(rates, "all true texts are empty"), text=self._table())
        values = {name: 100 * float(rate(self.predictions, self.truths)) for name, rate in rates.items()}
        return Scores(values=values, text=self._table())

    def _table(self) -> str:
        """Numbers of samples and units, and the first mistakes."""
        unit = "symbols" if self.labels.boundary is None else "words"
        count = sum(len(text.split()) for text in self.truths)
        pairs = [pair for pair in zip(self.predictions, self.truths, strict=True) if pair[0] != pair[1]]
        lines = [f"{len(self.truths)} samples, {count} {unit}, {len(pairs)} samples with mistakes"]
        for predicted, truth in pairs[:_SHOWN]:
            lines += [f"true:      {truth}", f"predicted: {predicted}"]
        return "\n".join(lines)
