"""Image classification on top of an encoder.

The head pools and classifies what any encoder gives. Augmentation, rates by layer and evaluation lie elsewhere.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from d2v.core.model import Batch, Encodes, StepOutput

Pooling = Literal["mean", "class-token"]


class ImageClassifier(nn.Module):
    """Pooled features through a norm and a linear layer; the defaults are those of the published 2.0 models.

    Args:
        encoder: a `Backbone`, or any other module with its `encode` method.
        num_classes: number of classes.
        dim: d, the width of the encoder.
        pooling: "mean" = of all patches, without extra tokens; "class-token" = the first token.
        norm: whether a LayerNorm (eps 1e-6) stands before the linear layer.
        label_smoothing: share of the target that is spread over all classes, in training mode only.

    Raises:
        ValueError: if a value is out of its range.

    >>> import torch
    >>> from d2v.core.model import Backbone, BlockConfig, EncoderConfig
    >>> from d2v.vision import ImageAdapterConfig
    >>> config = EncoderConfig(block=BlockConfig(dim=16, num_heads=2), depth=1)
    >>> adapter = ImageAdapterConfig(image_size=8, patch_size=4).build(config)
    >>> classifier = ImageClassifier(Backbone({"vision": adapter}, config.build()), num_classes=10, dim=16)
    >>> classifier.logits(Batch(source=torch.zeros(2, 3, 8, 8))).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        num_classes: int,
        dim: int,
        pooling: Pooling = "mean",
        norm: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes} must be at least 1")
        if pooling not in ("mean", "class-token"):
            raise ValueError(f"pooling={pooling!r} must be 'mean' or 'class-token'")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} must be at least 0 and below 1")
        self.encoder = encoder
        self.pooling = pooling
        self.label_smoothing = label_smoothing
        self.norm = nn.LayerNorm(dim, eps=1e-6) if norm else None
        self.head = nn.Linear(dim, num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def logits(self, batch: Batch) -> Tensor:
        """Scores `b classes`.

        Raises:
            ValueError: if the class token is asked for and the encoder has no extra tokens.
        """
        encoder: Encodes = self.encoder  # type: ignore[assignment]
        encoded = encoder.encode(batch)
        if self.pooling == "mean":
            x = encoded.x[:, encoded.num_extra :].mean(1)
        elif encoded.num_extra:
            x = encoded.x[:, 0]
        else:
            raise ValueError("pooling='class-token', but the encoder has no extra tokens; use pooling='mean'")
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
            raise ValueError("the batch has no labels to learn from")
        scores = self.logits(batch).float()
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(scores, batch.labels, reduction="sum", label_smoothing=smoothing)
        correct = (scores.detach().argmax(1) == batch.labels).sum()
        metrics = {"loss": (loss.detach(), batch.size), "accuracy": (100.0 * correct, batch.size)}
        return StepOutput(loss_sum=loss, sample_size=batch.size, metrics=metrics)
