"""Scores of sequences of symbols: error rates of words and characters."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from attrs import frozen

from d2v.core.labels import Symbols
from d2v.core.model import Batch
from d2v.core.scores.scores import Scores, nothing_scored

_SHOWN = 5


@frozen(kw_only=True)
class Transcript:
    """A predicted transcript that a search found: its text may be more than its symbols spell, words of a lexicon.

    Args:
        symbols: numbers of the symbols.
        text: words, separated by spaces.
        raw: numbers of the symbols without the search, the best one of each frame; None = not known.
    """

    symbols: Sequence[int]
    text: str
    raw: Sequence[int] | None = None


class SymbolScorer:
    """Keep the texts of a split: predictions and references.

    Error rates are edits (insertions, deletions, replacements) divided by the length of the reference, in percent, over
    the whole split: `wer` of words and `cer` of characters if the symbols have a word boundary, else `uer` of symbols.
    If all transcripts have `raw` symbols, `raw_wer` or `raw_uer` is the rate of these.

    Args:
        labels: the dictionary.

    >>> import torch
    >>> scorer = SymbolScorer(Symbols(("|", "A", "B"), boundary="|"))
    >>> labels, lengths = torch.tensor([[1, 2, 0, 2]]), torch.tensor([4])
    >>> scorer.update([[1, 2, 0, 1]], Batch(source=torch.zeros(1, 9), labels=labels, label_lengths=lengths))
    >>> scorer.compute().metrics()
    {'wer': 50.0, 'cer': 25.0}
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset({"wer", "cer", "uer", "raw_wer", "raw_uer"})

    def __init__(self, labels: Symbols) -> None:
        self.labels = labels
        self.predictions: list[str] = []
        """Predicted text of each sample."""
        self.raw: list[str] = []
        """Text of the raw symbols, of each sample that has them."""
        self.truths: list[str] = []
        """True text of each sample."""
        self.units: list[tuple[str, str]] = []
        """Predicted and true symbols of each sample, separated by spaces."""
        self.ids: list[int] = []
        """Id of each sample; its position if the batches have no ids."""

    def update(self, outputs: Sequence[Sequence[int] | Transcript], batch: Batch) -> None:
        """Add a batch.

        Args:
            outputs: predicted symbol numbers of each of the b samples; decoded, so without blanks. Or transcripts.
            batch: with labels `b s` and their lengths.

        Raises:
            ValueError: if there are more or fewer sequences than samples, or a number is not that of a symbol.
        """
        truths = self.labels.sequences(batch)
        if len(outputs) != len(truths):
            raise ValueError(f"there are {len(outputs)} predicted sequences for {len(truths)} samples")
        rows = [one.symbols if isinstance(one, Transcript) else one for one in outputs]
        raw = [one.raw for one in outputs if isinstance(one, Transcript) and one.raw is not None]
        wrong = [number for row in (*rows, *raw) for number in row if not 0 <= number < self.labels.num_outputs]
        if wrong:
            raise ValueError(f"outputs contain {wrong[0]}, but symbol numbers are 0 to {self.labels.num_outputs - 1}")
        text = self.labels.text
        self.predictions += [one.text if isinstance(one, Transcript) else text(one) for one in outputs]
        self.raw += map(text, raw)
        self.truths += map(text, truths)
        self.units += [(self._spelled(row), self._spelled(truth)) for row, truth in zip(rows, truths, strict=True)]
        ids = torch.arange(batch.size) + len(self.ids) if batch.ids is None else batch.ids
        self.ids += ids.tolist()

    def _spelled(self, numbers: Sequence[int]) -> str:
        return " ".join(self.labels.symbols[number] for number in numbers)

    def merge_state(self, others: Iterable["SymbolScorer"]) -> None:
        """Add the texts of other scorers."""
        for other in others:
            self.predictions += other.predictions
            self.raw += other.raw
            self.truths += other.truths
            self.units += other.units
            self.ids += other.ids

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
        has_raw = bool(self.raw) and len(self.raw) == len(self.truths)
        raw_name = f"raw_{next(iter(rates))}"
        if not any(self.truths):
            reasons = dict.fromkeys([*rates, raw_name] if has_raw else rates, "all true texts are empty")
            return Scores(values={}, reasons=reasons, text=self._table(), files=self._files())
        values = {name: 100 * float(rate(self.predictions, self.truths)) for name, rate in rates.items()}
        if has_raw:
            values[raw_name] = 100 * float(word_error_rate(self.raw, self.truths))
        return Scores(values=values, text=self._table(), files=self._files())

    def _files(self) -> dict[str, str]:
        """Predictions and references as the original toolkit writes them: `TEXT (None-ID)`, in the order of the ids."""
        columns = {
            "hypo.word": self.predictions,
            "ref.word": self.truths,
            "hypo.units": [predicted for predicted, _ in self.units],
            "ref.units": [truth for _, truth in self.units],
        }
        order = sorted(range(len(self.ids)), key=lambda row: self.ids[row])
        return {
            name: "".join(f"{texts[row]} (None-{self.ids[row]})\n" for row in order) for name, texts in columns.items()
        }

    def _table(self) -> str:
        """Numbers of samples and units, and the first mistakes."""
        unit = "symbols" if self.labels.boundary is None else "words"
        count = sum(len(text.split()) for text in self.truths)
        pairs = [pair for pair in zip(self.predictions, self.truths, strict=True) if pair[0] != pair[1]]
        lines = [f"{len(self.truths)} samples, {count} {unit}, {len(pairs)} samples with mistakes"]
        for predicted, truth in pairs[:_SHOWN]:
            lines += [f"true:      {truth}", f"predicted: {predicted}"]
        return "\n".join(lines)
