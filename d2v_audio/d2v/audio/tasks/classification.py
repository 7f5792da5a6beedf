"""Audio classification: the tasks that a recipe names, with one class for each recording or with any number."""

from typing import Any, ClassVar

from attrs import field, frozen
from attrs.validators import ge, optional
from torch import Tensor, nn

from d2v.audio.tasks.classifier import AudioClassifier, AudioTagger
from d2v.audio.tasks.fine_tuning import FineTuningParts, mask_seed
from d2v.audio.tasks.mixing import GainMode, SourceMixup
from d2v.audio.tasks.pooling import FrameClassifier, Pooling
from d2v.core.classification import class_rows
from d2v.core.labels import Classes, Labels, MultiLabel
from d2v.core.model import Batch, Student
from d2v.core.scores import ClassScorer, MultiLabelScorer
from d2v.core.scores.classes import ClassMetric
from d2v.core.validators import fraction, positive, probability

_LIKELIEST = 10


@frozen(kw_only=True)
class AudioClassification(FineTuningParts):
    """Classification of recordings into one class each, such as keywords; see `AudioClassifier` and `FrameClassifier`.

    Args:
        metrics: metrics in addition to loss and accuracies: mcc, f1 (mean over the classes), calibration_error.
    """

    described_by: ClassVar[tuple[type, ...]] = (FrameClassifier, AudioClassifier)
    labels: ClassVar[type[Labels]] = Classes
    best: ClassVar[str] = "accuracy"
    use_options: ClassVar[frozenset[str]] = frozenset({"metrics"})

    pooling: Pooling = "mean"
    metrics: tuple[ClassMetric, ...] = ()

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> AudioClassifier:
        """Build the classifier around an encoder.

        Raises:
            ValueError: if there are fewer than two classes.
        """
        if labels.num_outputs < 2:
            raise ValueError(f"audio classification needs at least two classes, not {labels.num_outputs}")
        head = FrameClassifier(embed_dim, labels.num_outputs, pooling=self.pooling, dropout=self.final_dropout)
        return AudioClassifier(encoder, head, masker=self.masker(embed_dim), seed=mask_seed())

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Tensor:
        """Scores `b c`."""
        del labels
        assert isinstance(module, AudioClassifier)
        return module.logits(batch)

    def scorer(self, labels: Labels) -> ClassScorer:
        """Scorer of accuracies, loss, confusions and a table by class."""
        assert isinstance(labels, Classes)
        return ClassScorer(labels, metrics=self.metrics)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """Return the class, its probability and the five likeliest classes of each recording."""
        assert isinstance(labels, Classes)
        return class_rows(self.outputs(module, batch, labels=labels), labels.names)


@frozen(kw_only=True)
class AudioTagging(FineTuningParts):
    """Any number of classes for each recording, as in AudioSet; see `AudioTagger`, `FrameClassifier` and `SourceMixup`.

    Args:
        mixup: smallest fraction of a recording in the mixture of two recordings; null = recordings are not mixed.
        mixup_prob: probability that a recording is mixed.
        same_mixup: whether all recordings of a batch have the same fraction.
        label_mixup: whether labels are mixed as well.
        gain_mode: levels by which the fractions are corrected: none, rms, a-weighting.
        sample_rate: of the recordings in Hz, for `gain_mode`.
        threshold: probability from which `predict` names a class.
    """

    described_by: ClassVar[tuple[type, ...]] = (FrameClassifier, AudioTagger)
    labels: ClassVar[type[Labels]] = MultiLabel
    best: ClassVar[str] = "map"
    use_options: ClassVar[frozenset[str]] = frozenset({"threshold"})

    pooling: Pooling = "linear-softmax"
    eval_pooling: Pooling | None = None
    odds_factor: float = field(default=1.0, validator=positive)
    mixup: float | None = field(default=None, validator=optional(fraction))
    mixup_prob: float = field(default=1.0, validator=fraction)
    same_mixup: bool = True
    label_mixup: bool = True
    gain_mode: GainMode = "none"
    sample_rate: int = field(default=16_000, validator=ge(1))
    threshold: float = field(default=0.5, validator=probability)

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> AudioTagger:
        """Build the tagger around an encoder."""
        head = FrameClassifier(
            embed_dim,
            labels.num_outputs,
            pooling=self.pooling,
            eval_pooling=self.eval_pooling,
            odds_factor=self.odds_factor,
            dropout=self.final_dropout,
            padding="zero",
        )
        return AudioTagger(encoder, head, mixup=self.source_mixup(), masker=self.masker(embed_dim), seed=mask_seed())

    def source_mixup(self) -> SourceMixup | None:
        """Return the mixing of recordings; None = no mixing."""
        if self.mixup is None:
            return None
        return SourceMixup(
            low=self.mixup,
            prob=self.mixup_prob,
            same=self.same_mixup,
            labels=self.label_mixup,
            gain=self.gain_mode,
            sample_rate=self.sample_rate,
        )

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Tensor:
        """Scores `b c`."""
        del labels
        assert isinstance(module, AudioTagger)
        return module.logits(batch)

    def scorer(self, labels: Labels) -> MultiLabelScorer:
        """Scorer of mean average precision and loss, with a table of the classes."""
        assert isinstance(labels, MultiLabel)
        return MultiLabelScorer(labels)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """Return the classes of each recording, and the ten likeliest ones with their probabilities."""
        assert isinstance(labels, MultiLabel)
        probabilities = self.outputs(module, batch, labels=labels).sigmoid()
        rows: list[dict[str, Any]] = []
        for row in probabilities:
            order = row.argsort(descending=True, stable=True).tolist()
            likeliest = {labels.names[number]: round(float(row[number]), 6) for number in order[:_LIKELIEST]}
            classes = [labels.names[number] for number in order if row[number] >= self.threshold]
            rows.append({"classes": classes, "likeliest": likeliest})
        return rows
