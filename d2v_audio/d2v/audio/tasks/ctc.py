"""Speech recognition with CTC: the task that a recipe names."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

from d2v.audio.decoding import DecoderConfig, Greedy, Hypothesis
from d2v.audio.decoding.greedy import best_path
from d2v.audio.tasks.ctc_model import Average, BlankMode, CTCModel
from d2v.audio.tasks.fine_tuning import FineTuningParts, mask_seed
from d2v.core.finite import NotFiniteError
from d2v.core.labels import Labels, Symbols
from d2v.core.model import Batch, Student
from d2v.core.scores import SymbolScorer, Transcript


@frozen(kw_only=True)
class CTC(FineTuningParts):
    """Speech recognition with CTC; see `CTCModel` (data2vec 1.0, section 5.2).

    Args:
        decoder: search for the transcripts: greedy, or beam with a lexicon and a language model if wanted; used in
            validation as well.
        sample_rate: of the recordings in Hz, for the times of words; a front end with its own rate ignores it.
    """

    described_by: ClassVar[tuple[type, ...]] = (CTCModel,)
    labels: ClassVar[type[Labels]] = Symbols
    best: ClassVar[str] = "wer"
    use_options: ClassVar[frozenset[str]] = frozenset({"decoder"})

    blank_weight: float = 0.0
    blank_mode: BlankMode = "add"
    average: Average = "utterances"
    decoder: DecoderConfig = field(factory=Greedy)
    sample_rate: int = field(default=16_000, validator=ge(1))

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> CTCModel:
        """Build the model around an encoder.

        Raises:
            ValueError: if the dictionary has no blank.
        """
        assert isinstance(labels, Symbols)
        return CTCModel(
            encoder,
            num_symbols=labels.num_outputs,
            embed_dim=embed_dim,
            blank=labels.blank_number,
            specials=tuple(labels.symbols.index(symbol) for symbol in labels.specials),
            final_dropout=self.final_dropout,
            blank_weight=self.blank_weight,
            blank_mode=self.blank_mode,
            average=self.average,
            masker=self.masker(embed_dim),
            seed=mask_seed(),
        )

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[Sequence[int] | Transcript]:
        """Return the best transcript of each recording that `decoder` finds: symbol numbers, or words of a lexicon.

        Raises:
            NotFiniteError: naming the recordings whose scores are not numbers.
            DataError: if a file of the decoder cannot be used.
            MissingExtraError: if the decoder needs the extra `decode`, which is not installed.
        """
        return self.decode(self.results(module, batch), labels=labels)

    def results(self, module: nn.Module, batch: Batch) -> list[Tensor]:
        """Return the log-probabilities `t v` of each recording at its valid frames.

        Raises:
            NotFiniteError: as `outputs`.
        """
        assert isinstance(module, CTCModel)
        logits, lengths = module.scores(batch)
        wrong = (logits.isnan() | (logits == torch.inf)).flatten(1).any(1)
        if bool(wrong.any()):
            numbers = wrong.nonzero()[:, 0]
            raise NotFiniteError("outputs", (numbers if batch.ids is None else batch.ids[numbers]).tolist())
        scores = logits.detach().log_softmax(-1)
        return [row[:length] for row, length in zip(scores, lengths.tolist(), strict=True)]

    def decode(self, results: list[Tensor], *, labels: Labels) -> list[Sequence[int] | Transcript]:
        """Return outputs from `results`; with other options of `decoder`, they need no second pass of the model."""
        assert isinstance(labels, Symbols)
        found: list[Sequence[int] | Transcript] = []
        for scores, hypotheses in zip(results, self._hypotheses(results, labels), strict=True):
            best = hypotheses[0]
            if isinstance(self.decoder, Greedy):
                found.append(best.tokens)
                continue
            raw = best_path(scores, labels.blank_number).tokens
            found.append(Transcript(symbols=best.tokens, text=best.text(labels), raw=raw))
        return found

    def scorer(self, labels: Labels) -> SymbolScorer:
        """Scorer of error rates; with a search, `wer` is of its words and `raw_wer` of the best symbol of each frame.

        Raises:
            DataError: as `outputs`; a scorer is made before any work.
            MissingExtraError: as `outputs`.
        """
        assert isinstance(labels, Symbols)
        self.decoder.build(labels)
        return SymbolScorer(labels)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """Return text, symbols and score of the best hypothesis, and the words with their times in seconds.

        `words` is left out if the front end has no `stride` (samples from frame to frame). If `decoder` is asked for
        several hypotheses, `nbest` has text and score of each.

        Raises:
            NotFiniteError: naming the recordings whose scores are not numbers.
            DataError: as `outputs`.
            MissingExtraError: as `outputs`.
        """
        assert isinstance(labels, Symbols)
        seconds = _frame_seconds(module, self.modality, self.sample_rate)
        rows = []
        for hypotheses in self._hypotheses(self.results(module, batch), labels):
            best = hypotheses[0]
            symbols = " ".join(labels.symbols[number] for number in best.tokens)
            row: dict[str, Any] = {"text": best.text(labels), "symbols": symbols, "score": round(best.score, 4)}
            if seconds is not None:
                row["words"] = best.timed_words(labels, seconds)
            if getattr(self.decoder, "nbest", 1) > 1:
                row["nbest"] = [{"text": one.text(labels), "score": round(one.score, 4)} for one in hypotheses]
            rows.append(row)
        return rows

    def _hypotheses(self, results: list[Tensor], labels: Symbols) -> list[list[Hypothesis]]:
        search = self.decoder.build(labels)
        return [search(scores) for scores in results]


def _frame_seconds(module: nn.Module, modality: str, sample_rate: int) -> float | None:
    """Time from frame to frame, if the encoder is made of adapters and its front end says its stride."""
    adapter = getattr(module.encoder, "adapter", None)
    front = None if adapter is None else adapter(modality).front
    stride: int | None = getattr(front, "stride", None)
    rate: int = getattr(front, "sample_rate", sample_rate)
    return None if stride is None else stride / rate
