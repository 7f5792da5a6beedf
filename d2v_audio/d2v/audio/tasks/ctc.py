"""Speech recognition with CTC: the task that a recipe names."""

from typing import Any, ClassVar

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

from d2v.audio.tasks.ctc_model import Average, BlankMode, CTCModel
from d2v.audio.tasks.fine_tuning import FineTuningParts, mask_seed
from d2v.audio.tasks.words import words_of
from d2v.core.finite import NotFiniteError
from d2v.core.labels import Labels, Symbols
from d2v.core.model import Batch, Student
from d2v.core.scores import SymbolScorer


@frozen(kw_only=True)
class CTC(FineTuningParts):
    """Speech recognition with CTC; see `CTCModel` (data2vec 1.0, section 5.2).

    Args:
        sample_rate: of the recordings in Hz, for the times of words.
    """

    described_by: ClassVar[tuple[type, ...]] = (CTCModel,)
    labels: ClassVar[type[Labels]] = Symbols
    best: ClassVar[str] = "wer"
    use_options: ClassVar[frozenset[str]] = frozenset()

    blank_weight: float = 0.0
    blank_mode: BlankMode = "add"
    average: Average = "utterances"
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

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[list[int]]:
        """Return the symbol numbers of each recording: the best symbol of each frame, without repeats and blanks.

        Raises:
            NotFiniteError: naming the recordings whose scores are not numbers.
        """
        assert isinstance(labels, Symbols)
        paths, _ = _best_paths(module, batch)
        return [labels.collapse(path) for path in paths]

    def scorer(self, labels: Labels) -> SymbolScorer:
        """Scorer of error rates."""
        assert isinstance(labels, Symbols)
        return SymbolScorer(labels)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """Return text, symbols, log-probability of the best path, and the words with their times in seconds.

        `words` is left out if the front end has no `stride` (samples from frame to frame).

        Raises:
            NotFiniteError: naming the recordings whose scores are not numbers.
        """
        assert isinstance(labels, Symbols)
        paths, scores = _best_paths(module, batch)
        stride = _stride(module, self.modality)
        rows = []
        for path, score in zip(paths, scores, strict=True):
            numbers = labels.collapse(path)
            symbols = " ".join(labels.symbols[number] for number in numbers)
            row: dict[str, Any] = {"text": labels.text(numbers), "symbols": symbols, "score": round(score, 4)}
            if stride is not None:
                row["words"] = [word.timed(stride / self.sample_rate) for word in words_of(path, labels)]
            rows.append(row)
        return rows


def _best_paths(module: nn.Module, batch: Batch) -> tuple[list[Tensor], list[float]]:
    """The best symbol of each valid frame of each recording, and the sum of its log-probabilities."""
    assert isinstance(module, CTCModel)
    logits, lengths = module.scores(batch)
    wrong = (logits.isnan() | (logits == torch.inf)).flatten(1).any(1)
    if bool(wrong.any()):
        numbers = wrong.nonzero()[:, 0]
        raise NotFiniteError("outputs", (numbers if batch.ids is None else batch.ids[numbers]).tolist())
    best = logits.detach().log_softmax(-1).max(-1)
    rows = list(zip(best.values.cpu(), best.indices.cpu(), lengths.tolist(), strict=True))
    return [path[:length] for _, path, length in rows], [float(values[:length].sum()) for values, _, length in rows]


def _stride(module: nn.Module, modality: str) -> int | None:
    """Samples from frame to frame, if the encoder is made of adapters and its front end says it."""
    adapter = getattr(module.encoder, "adapter", None)
    found: int | None = None if adapter is None else getattr(adapter(modality).front, "stride", None)
    return found
