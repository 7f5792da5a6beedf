"""Speech recognition by connectionist temporal classification (Graves et al. 2006) on top of an encoder.

The module takes plain values and wraps any encoder; `ctc.py` has the task that a recipe names.
"""

import logging
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import evolve
from attrs.validators import ge
from torch import Tensor, nn

from d2v.audio.tasks.frames import encode_frames, prepared_recordings
from d2v.core.finite import some_of
from d2v.core.masks import Masker
from d2v.core.model import Batch, StepOutput
from d2v.core.nn import Dropout, initialise
from d2v.core.validators import check, must, one_of

_logger = logging.getLogger(__name__)

BlankMode = Literal["add", "set"]
Average = Literal["utterances", "symbols"]


class CTCModel(nn.Module):
    """Scores of symbols for each frame, by dropout and a linear layer; the loss is CTC.

    Args:
        encoder: a `Backbone` that keeps hidden positions, or any other module with its `encode` method.
        num_symbols: v, size of the dictionary.
        embed_dim: d, the width of the encoder.
        blank: number of the blank symbol.
        specials: numbers of symbols that are removed from the transcripts: padding, end of sentence.
        final_dropout: dropout of the frames before the linear layer.
        blank_weight: added to the score of the blank, or replaces it; 0 = unchanged.
        blank_mode: "add" or "set".
        average: what the loss is a mean over, "utterances" or "symbols" of the transcripts.
        masker: masks of frames and channels in training; None = no masks.
        seed: seed of the masks.

    Raises:
        ValueError: if a value is out of its range.

    >>> from d2v.audio import WaveformAdapter
    >>> from d2v.core.model import Backbone
    >>> from d2v.core.nn import TransformerEncoder
    >>> adapter = WaveformAdapter(embed_dim=16)
    >>> backbone = Backbone(adapter, TransformerEncoder.stack(16, depth=1, num_heads=2), visible_only=False)
    >>> model = CTCModel(backbone, num_symbols=32, embed_dim=16)
    >>> model.logits(Batch(source=torch.zeros(2, 16000))).shape
    torch.Size([2, 49, 32])
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        num_symbols: int,
        embed_dim: int,
        blank: int = 0,
        specials: tuple[int, ...] = (),
        final_dropout: float = 0.0,
        blank_weight: float = 0.0,
        blank_mode: BlankMode = "add",
        average: Average = "utterances",
        masker: Masker | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check(ge(2), num_symbols=num_symbols)
        check(must(lambda number: 0 <= number < num_symbols, f"a symbol, from 0 to {num_symbols - 1}"), blank=blank)
        check(one_of(BlankMode), blank_mode=blank_mode)
        check(one_of(Average), average=average)
        self.encoder = encoder
        self.dropout = Dropout(final_dropout)
        self.proj = nn.Linear(embed_dim, num_symbols)
        initialise(self.proj, "xavier")
        self.blank = blank
        self.specials = specials
        self.blank_weight = blank_weight
        self.blank_mode = blank_mode
        self.average = average
        self.masker = masker
        self.seed = seed
        self._named = False

    def prepared(self, batch: Batch, *, update: int) -> Batch:
        """Return a batch on the CPU with its masks and the symbols that are used; see `Data2Vec.prepared`."""
        found = prepared_recordings(self.encoder, batch, masker=self.masker, seed=self.seed, update=update)
        if found.known is None:
            return found
        symbols, lengths = used_symbols(batch, self.specials)
        self._name(batch, frames_needed(symbols, lengths) > torch.tensor(found.known.lengths))
        known = evolve(found.known, label_lengths=tuple(lengths.tolist()))
        return replace(found, labels=symbols, label_lengths=lengths, known=known)

    def logits(self, batch: Batch) -> Tensor:
        """Scores `b t v` in float32, without masks; at padded frames 0 for the blank and -inf for the other symbols."""
        return self.scores(batch)[0]

    def scores(self, batch: Batch, *, update: int | None = None) -> tuple[Tensor, Tensor]:
        """Scores as those of `logits`, and the number of frames of each recording, Long `b`.

        Args:
            batch: b recordings.
            update: number of finished updates, for the masks; None = no training.
        """
        frames = encode_frames(self.encoder, batch, masker=self.masker, seed=self.seed, update=update)
        logits = self.proj(self.dropout(frames.x)).float()
        blank = torch.arange(logits.shape[-1], device=logits.device) == self.blank
        if self.blank_weight and self.blank_mode == "add":
            logits = logits + self.blank_weight * blank
        elif self.blank_weight:
            logits = logits.masked_fill(blank, self.blank_weight)
        if frames.padding is not None:
            padded = torch.zeros_like(logits[0, 0]).masked_fill(~blank, -torch.inf)
            logits = torch.where(frames.padding[..., None], padded, logits)
        return logits, frames.lengths

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        """CTC loss as a sum over the utterances, in float32.

        A transcript that needs more frames than its recording has cannot be aligned. Its loss would be infinite; it is
        0, and counted in `too_long`.

        Args:
            batch: b recordings; `labels` Long `b s` with `label_lengths` Long `b`.
            update: number of finished updates; determines the masks together with the seed and the ids.

        Returns:
            The loss, and metrics `loss_per_symbol` and `too_long` (transcripts that cannot be aligned, in percent).

        Raises:
            ValueError: if the batch has no transcripts, or a recording is shorter than one frame.
        """
        known = None if batch.known is None else batch.known.label_lengths
        if known is not None and batch.labels is not None and batch.label_lengths is not None:
            symbols, symbol_lengths = batch.labels, batch.label_lengths
        else:
            symbols, symbol_lengths = used_symbols(batch, self.specials)
        logits, lengths = self.scores(batch, update=update if self.training else None)
        too_long = frames_needed(symbols, symbol_lengths) > lengths.to(symbols.device, non_blocking=True)
        if known is None:
            self._name(batch, too_long)
            known = tuple(symbol_lengths.tolist())
        loss = F.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            symbols,
            tuple(lengths.tolist()),  # type: ignore[arg-type]  # documented: also integers, which are on the CPU
            known,  # type: ignore[arg-type]  # as above
            blank=self.blank,
            reduction="sum",
            zero_infinity=True,
        )
        metrics = {"too_long": (100.0 * too_long.sum(), batch.size)}
        if sum(known):
            metrics["loss_per_symbol"] = (loss.detach(), sum(known))
        count = batch.size if self.average == "utterances" else sum(known)
        return StepOutput(loss_sum=loss, sample_size=count, metrics=metrics)

    def _name(self, batch: Batch, too_long: Tensor) -> None:
        """Warn of the first transcripts that are too long; the metric counts all."""
        if self._named or not bool(too_long.any()):
            return
        self._named = True
        numbers = too_long.nonzero()[:, 0]
        ids = (numbers if batch.ids is None else batch.ids[numbers]).tolist()
        _logger.warning(
            "the transcripts of samples %s need more frames than their recordings have, so nothing is learned from "
            "them; the metric too_long counts all such samples, in percent",
            some_of(ids),
        )


def used_symbols(batch: Batch, specials: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the transcripts of a batch without special symbols.

    Returns:
        The symbols, Long `b s`, and the number of those of each transcript, Long `b`.

    Raises:
        ValueError: if the batch has no transcripts.

    >>> labels, lengths = torch.tensor([[5, 1, 6, 1]]), torch.tensor([3])
    >>> batch = Batch(source=torch.zeros(1, 9), labels=labels, label_lengths=lengths)
    >>> symbols, lengths = used_symbols(batch, (1,))
    >>> symbols[0, : lengths[0]]
    tensor([5, 6])
    """
    labels, lengths = batch.labels, batch.label_lengths
    if labels is None or lengths is None:
        raise ValueError("the batch has no transcripts (labels with label_lengths), which CTC needs")
    if not labels.shape[1]:
        labels = labels.new_zeros(len(labels), 1)  # torch refuses none
    kept = torch.arange(labels.shape[1], device=labels.device) < lengths[:, None]
    for special in specials:
        kept &= labels != special
    first = kept.logical_not().long().argsort(dim=1, stable=True)
    return labels.gather(1, first), kept.sum(1)


def frames_needed(symbols: Tensor, lengths: Tensor) -> Tensor:
    """Frames of the shortest alignment, Long `b`: one a symbol, and a blank between equal symbols.

    Args:
        symbols: Long `b s`.
        lengths: number of symbols of each transcript, Long `b`.

    >>> frames_needed(torch.tensor([[7, 7, 8]]), torch.tensor([3]))
    tensor([4])
    """
    inside = torch.arange(1, symbols.shape[1], device=symbols.device) < lengths[:, None]
    return lengths + ((symbols[:, 1:] == symbols[:, :-1]) & inside).sum(1)
