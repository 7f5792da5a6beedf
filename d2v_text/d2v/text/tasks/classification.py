"""Classification and regression of texts or pairs of texts: the classifier, and the tasks that a recipe names.

The classifier takes plain values and wraps any encoder; the tasks build, evaluate and apply it.
"""

from typing import Any, ClassVar, Literal

import attrs
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import optional
from torch import Tensor, nn

from d2v.core.classification import class_rows, cross_entropy_step
from d2v.core.labels import Classes, Labels, Number
from d2v.core.model import (
    BackboneConfig,
    Batch,
    Encodes,
    StepOutput,
    Student,
    StudentConfig,
    TransformerConfig,
)
from d2v.core.model.masking import prepared
from d2v.core.nn import Dropout, initialise
from d2v.core.scores import ClassScorer, NumberScorer
from d2v.core.scores.classes import ClassMetric
from d2v.core.validators import check, one_of, positive, probability

HeadInit = Literal["default", "normal"]


class SentenceClassifier(nn.Module):
    """Classify texts by the first token's vector, through dropout, linear, tanh, dropout and linear.

    Args:
        encoder: a `Backbone`, or any other module with its `encode` method.
        num_classes: number of classes; 1 = regression with squared error.
        embed_dim: d, the width of the encoder.
        dropout: dropout before both linear layers.
        init: of both linear layers: "default" = PyTorch's, as in 2.0; "normal" = N(0, 0.02), as in 1.0.
        label_scale: labels of regression are divided by it; `numbers` are on their scale.

    Raises:
        ValueError: if a value is out of its range.

    >>> from d2v.core.model import Backbone, BlockConfig, TransformerConfig
    >>> from d2v.text import TextAdapterConfig
    >>> config = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> adapter = TextAdapterConfig(vocabulary_size=10).build(config)
    >>> classifier = SentenceClassifier(Backbone({"text": adapter}, config.build()), num_classes=3, embed_dim=16)
    >>> classifier.logits(Batch(source=torch.tensor([[0, 5, 2], [0, 6, 2]]))).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        num_classes: int,
        embed_dim: int,
        dropout: float = 0.0,
        init: HeadInit = "default",
        label_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check(one_of(HeadInit), init=init)
        check(positive, label_scale=label_scale)
        self.encoder = encoder
        self.label_scale = label_scale
        self.dropout = Dropout(dropout)
        self.dense = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, num_classes)
        if init == "normal":
            for linear in (self.dense, self.out_proj):
                initialise(linear, init)

    def prepared(self, batch: Batch, *, update: int) -> Batch:
        """Return a batch on the CPU that knows whether it has padding; see `Data2Vec.prepared`."""
        del update
        return prepared(batch, self.encoder, lambda _: batch.mask)

    def logits(self, batch: Batch) -> Tensor:
        """Scores `b classes`."""
        encoder: Encodes = self.encoder  # type: ignore[assignment]  # a module with that method
        encoded = encoder.encode(batch)
        x = torch.tanh(self.dense(self.dropout(encoded.x[:, encoded.num_prefix_tokens])))
        scores: Tensor = self.out_proj(self.dropout(x))
        return scores

    def numbers(self, batch: Batch) -> Tensor:
        """Results of regression `b`, on the scale of the labels."""
        return self.logits(batch)[:, 0].float() * self.label_scale

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        """Loss as a sum over the texts, in float32; `batch.labels` is Long `b`, or float `b` for regression.

        Returns:
            The loss, and metrics `loss` and, of classes, `accuracy` (in percent).

        Raises:
            ValueError: if the batch has no labels.
        """
        del update
        if batch.labels is None:
            raise ValueError("the batch has no labels; classification needs them")
        scores = self.logits(batch).float()
        if scores.shape[1] > 1:
            return cross_entropy_step(scores, batch)
        loss = F.mse_loss(scores[:, 0], batch.labels.float() / self.label_scale, reduction="sum")
        return StepOutput(loss_sum=loss, sample_size=batch.size, metrics={"loss": (loss.detach(), batch.size)})


@frozen(kw_only=True)
class TextTaskParts:
    """Settings that both tasks of text models share.

    Args:
        encoder_dropout: dropout of the embeddings and of the blocks; null = as in pretraining.
        attention_dropout: dropout of the attention weights; null = as in pretraining.
    """

    described_by: ClassVar[tuple[type, ...]] = (SentenceClassifier,)
    modality: ClassVar[str] = "text"

    dropout: float = field(default=0.0, validator=probability)
    init: HeadInit = "default"
    encoder_dropout: float | None = field(default=None, validator=optional(probability))
    attention_dropout: float | None = field(default=None, validator=optional(probability))

    def adapt(self, config: StudentConfig) -> StudentConfig:
        """Return the encoder with these dropouts; a third-party encoder is unchanged."""
        if not isinstance(config, BackboneConfig) or not isinstance(config.encoder, TransformerConfig):
            return config
        block, adapter = config.encoder.block, config.adapters[self.modality]
        if self.attention_dropout is not None:
            block = attrs.evolve(block, attention_dropout=self.attention_dropout)
        if self.encoder_dropout is not None:
            block = attrs.evolve(block, projection_dropout=self.encoder_dropout, dropout=self.encoder_dropout)
            adapter = attrs.evolve(adapter, embedding_dropout=self.encoder_dropout)  # type: ignore[misc]  # a text adapter
        encoder = attrs.evolve(config.encoder, block=block)
        return attrs.evolve(config, encoder=encoder, adapters={**config.adapters, self.modality: adapter})

    def _classifier(
        self, encoder: Student, *, embed_dim: int, num_classes: int, label_scale: float = 1.0
    ) -> SentenceClassifier:
        return SentenceClassifier(
            encoder,
            num_classes=num_classes,
            embed_dim=embed_dim,
            dropout=self.dropout,
            init=self.init,
            label_scale=label_scale,
        )


@frozen(kw_only=True)
class TextClassification(TextTaskParts):
    """Classification of texts, or of pairs of texts, into one class each; see `SentenceClassifier`.

    Args:
        metrics: metrics in addition to loss and accuracies: mcc, f1, acc_and_f1 (mean of accuracy and f1),
            calibration_error.
        positive: class whose f1 it is; null = mean over the classes.
    """

    labels: ClassVar[type[Labels]] = Classes
    best: ClassVar[str] = "accuracy"
    use_options: ClassVar[frozenset[str]] = frozenset({"metrics", "positive"})

    metrics: tuple[ClassMetric, ...] = ()
    positive: str | None = None

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> SentenceClassifier:
        """Build the classifier around an encoder.

        Raises:
            ValueError: if there are fewer than two classes.
        """
        if labels.num_outputs < 2:
            raise ValueError(f"text classification needs at least two classes, not {labels.num_outputs}")
        return self._classifier(encoder, embed_dim=embed_dim, num_classes=labels.num_outputs)

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Tensor:
        """Scores `b classes`."""
        del labels
        assert isinstance(module, SentenceClassifier)
        return module.logits(batch)

    def scorer(self, labels: Labels) -> ClassScorer:
        """Scorer of accuracies, loss, confusions and a table by class."""
        assert isinstance(labels, Classes)
        return ClassScorer(labels, metrics=self.metrics, positive=self.positive)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """Return the class, its probability and the five likeliest classes of each text."""
        assert isinstance(labels, Classes)
        return class_rows(self.outputs(module, batch, labels=labels), labels.names)


@frozen(kw_only=True)
class TextRegression(TextTaskParts):
    """A number for each text or pair of texts, such as a similarity; see `SentenceClassifier`."""

    labels: ClassVar[type[Labels]] = Number
    best: ClassVar[str] = "pearson_and_spearman"
    use_options: ClassVar[frozenset[str]] = frozenset()

    label_scale: float = field(default=1.0, validator=positive)

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> SentenceClassifier:
        """Build the model around an encoder."""
        return self._classifier(
            encoder, embed_dim=embed_dim, num_classes=labels.num_outputs, label_scale=self.label_scale
        )

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Tensor:
        """Numbers `b`, on the scale of the labels."""
        del labels
        assert isinstance(module, SentenceClassifier)
        return module.numbers(batch)

    def scorer(self, labels: Labels) -> NumberScorer:
        """Scorer of squared error and correlations."""
        assert isinstance(labels, Number)
        return NumberScorer(labels)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """Return the number of each text."""
        return [{"number": round(value, 6)} for value in self.outputs(module, batch, labels=labels).tolist()]
