"""Image classification: the classifier, and the task that a recipe names.

The classifier takes plain values and wraps any encoder; the task builds, evaluates and applies it.
"""

from typing import Any, ClassVar, Literal

import attrs
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

from d2v.core.classification import class_rows, cross_entropy_step
from d2v.core.labels import Classes, Labels
from d2v.core.model import BackboneConfig, Batch, Encodes, StepOutput, Student, StudentConfig, TransformerConfig
from d2v.core.scores import ClassScorer
from d2v.core.scores.classes import ClassMetric
from d2v.core.validators import check, one_of, probability
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.tasks.rates import fine_tuning_drop_path

Pooling = Literal["mean", "class-token"]


class ImageClassifier(nn.Module):
    """Classify pooled features by a norm and a linear layer; the defaults are those of the published 2.0 models.

    Args:
        encoder: a `Backbone`, or any other module with its `encode` method.
        num_classes: number of classes.
        embed_dim: d, the width of the encoder.
        pooling: "mean" = over all patches, without extra tokens; "class-token".
        norm: whether a LayerNorm precedes the linear layer.
        norm_eps: epsilon of that norm.
        label_smoothing: fraction of the target that is distributed over all classes, only in training mode.

    Raises:
        ValueError: if a value is out of its range.

    >>> import torch
    >>> from d2v.core.model import Backbone, BlockConfig, TransformerConfig
    >>> from d2v.vision import ImageAdapterConfig
    >>> config = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> adapter = ImageAdapterConfig(image_size=8, patch_size=4).build(config)
    >>> classifier = ImageClassifier(Backbone({"vision": adapter}, config.build()), num_classes=10, embed_dim=16)
    >>> classifier.logits(Batch(source=torch.zeros(2, 3, 8, 8))).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        num_classes: int,
        embed_dim: int,
        pooling: Pooling = "mean",
        norm: bool = True,
        norm_eps: float = 1e-6,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check(ge(1), num_classes=num_classes)
        check(one_of(Pooling), pooling=pooling)
        check(probability, label_smoothing=label_smoothing)
        self.encoder = encoder
        self.pooling = pooling
        self.label_smoothing = label_smoothing
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if norm else None
        self.head = nn.Linear(embed_dim, num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def logits(self, batch: Batch) -> Tensor:
        """Scores `b classes`.

        Raises:
            ValueError: if the pooling is "class-token" and the encoder has none.
        """
        encoder: Encodes = self.encoder  # type: ignore[assignment]  # a module with that method
        encoded = encoder.encode(batch)
        x = encoded.x[:, encoded.num_prefix_tokens :].mean(1) if self.pooling == "mean" else encoded.class_token
        scores: Tensor = self.head(x if self.norm is None else self.norm(x))
        return scores

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        """Cross-entropy as a sum over the images, in float32; `batch.labels` is Long `b`.

        Returns:
            The loss, and metrics `loss` and `accuracy` (in percent).

        Raises:
            ValueError: if the batch has no labels.
        """
        del update
        if batch.labels is None:
            raise ValueError("the batch has no labels; classification needs them")
        smoothing = self.label_smoothing if self.training else 0.0
        return cross_entropy_step(self.logits(batch), batch, label_smoothing=smoothing)


@frozen(kw_only=True)
class ImageClassification:
    """Classification of images into one class each; see `ImageClassifier`.

    Args:
        drop_path_rate: probability of dropping a branch of the last block; it decreases linearly towards the input.
        metrics: metrics in addition to loss and accuracies: mcc, f1 (mean over the classes), calibration_error.
    """

    described_by: ClassVar[tuple[type, ...]] = (ImageClassifier,)
    modality: ClassVar[str] = "vision"
    labels: ClassVar[type[Labels]] = Classes
    best: ClassVar[str] = "accuracy"
    use_options: ClassVar[frozenset[str]] = frozenset({"metrics"})

    pooling: Pooling = "mean"
    norm: bool = True
    norm_eps: float = 1e-6
    label_smoothing: float = field(default=0.0, validator=probability)
    drop_path_rate: float = field(default=0.0, validator=probability)
    metrics: tuple[ClassMetric, ...] = ()

    def adapt(self, config: StudentConfig) -> StudentConfig:
        """Return the encoder with drop path as its only dropout, as published; a third-party encoder is unchanged."""
        if not isinstance(config, BackboneConfig) or not isinstance(config.encoder, TransformerConfig):
            return config
        adapter = config.adapters[self.modality]
        assert isinstance(adapter, ImageAdapterConfig)
        context, depth = adapter.context, config.encoder.depth
        first, shared = fine_tuning_drop_path(
            self.drop_path_rate, context_depth=0 if context is None else context.depth, depth=depth
        )
        block = attrs.evolve(
            config.encoder.block,
            attention_dropout=0.0,
            projection_dropout=0.0,
            activation_dropout=0.0,
            branch_dropout=0.0,
            dropout=0.0,
        )
        encoder = attrs.evolve(config.encoder, block=block, dropout=0.0, layer_drop=0.0, drop_path_rate=shared)
        if context is not None:
            adapter = attrs.evolve(
                adapter, context=attrs.evolve(context, dropout=0.0, layer_drop=0.0, drop_path_rate=first)
            )
        return attrs.evolve(config, encoder=encoder, adapters={**config.adapters, self.modality: adapter})

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> ImageClassifier:
        """Build the classifier around an encoder.

        Raises:
            ValueError: if there are fewer than two classes.
        """
        if labels.num_outputs < 2:
            raise ValueError(f"image classification needs at least two classes, not {labels.num_outputs}")
        return ImageClassifier(
            encoder,
            num_classes=labels.num_outputs,
            embed_dim=embed_dim,
            pooling=self.pooling,
            norm=self.norm,
            norm_eps=self.norm_eps,
            label_smoothing=self.label_smoothing,
        )

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Tensor:
        """Scores `b classes`."""
        del labels
        assert isinstance(module, ImageClassifier)
        return module.logits(batch)

    def scorer(self, labels: Labels) -> ClassScorer:
        """Scorer of accuracies, loss, confusions and a table by class."""
        assert isinstance(labels, Classes)
        return ClassScorer(labels, metrics=self.metrics)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """Return the class, its probability and the five likeliest classes of each image."""
        assert isinstance(labels, Classes)
        return class_rows(self.outputs(module, batch, labels=labels), labels.names)
