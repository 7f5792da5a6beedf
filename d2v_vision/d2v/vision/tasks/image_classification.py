"""Image classification as a task: what a recipe says of it, and how it is trained, measured and used."""

from collections.abc import Iterable
from typing import Any, ClassVar

import attrs
from attrs import field, frozen, validators
from torch import nn

from d2v.core.model import Backbone, BackboneConfig, Batch
from d2v.core.scores import ClassScorer, ClassScores
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.tasks.classification import ImageClassifier, Pooling
from d2v.vision.tasks.rates import fine_tuning_drop_path

_SHOWN = 5


@frozen(kw_only=True)
class ImageClassification:
    """Images into classes, one each; see `ImageClassifier`.

    Args:
        drop_path: probability that a branch of the last block is left out; it falls linearly towards the input.
    """

    described_by: ClassVar[tuple[type, ...]] = (ImageClassifier,)
    modality: ClassVar[str] = "vision"
    best: ClassVar[str] = "accuracy"
    higher: ClassVar[bool] = True

    pooling: Pooling = "mean"
    norm: bool = True
    label_smoothing: float = field(default=0.0, validator=[validators.ge(0), validators.lt(1)])
    drop_path: float = field(default=0.0, validator=[validators.ge(0), validators.lt(1)])

    def adapt(self, config: BackboneConfig) -> BackboneConfig:
        """The encoder without dropout of any kind but drop path, as published."""
        adapter = config.adapters[self.modality]
        assert isinstance(adapter, ImageAdapterConfig)
        context, depth = adapter.context, config.encoder.depth
        first, shared = fine_tuning_drop_path(
            self.drop_path, context_depth=0 if context is None else context.depth, depth=depth
        )
        block = attrs.evolve(
            config.encoder.block,
            attention_dropout=0.0,
            projection_dropout=0.0,
            activation_dropout=0.0,
            branch_dropout=0.0,
            dropout=0.0,
        )
        encoder = attrs.evolve(config.encoder, block=block, dropout=0.0, layer_drop=0.0, drop_path=shared)
        if context is not None:
            adapter = attrs.evolve(adapter, context=attrs.evolve(context, dropout=0.0, layer_drop=0.0, drop_path=first))
        return attrs.evolve(config, encoder=encoder, adapters={**config.adapters, self.modality: adapter})

    def build(self, encoder: Backbone, *, dim: int, classes: tuple[str, ...]) -> ImageClassifier:
        """The classifier around an encoder.

        Raises:
            ValueError: if there are fewer than two classes.
        """
        if len(classes) < 2:
            raise ValueError(f"image classification needs at least two classes, not {len(classes)}")
        return ImageClassifier(
            encoder,
            num_classes=len(classes),
            dim=dim,
            pooling=self.pooling,
            norm=self.norm,
            label_smoothing=self.label_smoothing,
        )

    def evaluate(self, module: nn.Module, batches: Iterable[Batch], *, classes: tuple[str, ...]) -> ClassScores:
        """Accuracies, loss, confusions and a table of the classes.

        Raises:
            ValueError: if a batch has no labels, or there is no batch.
        """
        assert isinstance(module, ImageClassifier)
        scorer = ClassScorer(classes)
        for batch in batches:
            if batch.labels is None:
                raise ValueError("there are no labels to measure with: images of a class lie in a folder of its own")
            scorer.add(module.logits(batch), batch.labels)
        return scorer.result()

    def predict(self, module: nn.Module, batch: Batch, *, classes: tuple[str, ...]) -> list[dict[str, Any]]:
        """The class, its probability, and the five likeliest classes, of each image."""
        assert isinstance(module, ImageClassifier)
        probabilities = module.logits(batch).float().softmax(1)
        ranked = probabilities.argsort(dim=1, descending=True, stable=True)[:, :_SHOWN].tolist()
        rows = []
        for row, order in zip(probabilities.tolist(), ranked, strict=True):
            likeliest = " ".join(f"{classes[number]}={row[number]:.4f}" for number in order)
            rows.append({"class": classes[order[0]], "probability": round(row[order[0]], 6), "likeliest": likeliest})
        return rows
