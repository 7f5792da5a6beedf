"""Sentence classification and regression on top of an encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v.core.model import Batch, Encodes, StepOutput
from d2v.core.nn import Dropout, initialise


class SentenceClassifier(nn.Module):
    """Classify sentences by the first token's vector, through dropout, linear, tanh, dropout and linear.

    Args:
        encoder: a `Backbone`, or any other module with its `encode` method.
        num_classes: number of classes; 1 = regression with squared error.
        embed_dim: d, the width of the encoder.
        dropout: dropout before both linear layers.

    >>> from d2v.core.model import Backbone, BlockConfig, TransformerConfig
    >>> from d2v.text import TextAdapterConfig
    >>> config = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    >>> adapter = TextAdapterConfig(vocabulary_size=10).build(config)
    >>> classifier = SentenceClassifier(Backbone({"text": adapter}, config.build()), num_classes=3, embed_dim=16)
    >>> classifier.logits(Batch(source=torch.tensor([[0, 5, 2], [0, 6, 2]]))).shape
    torch.Size([2, 3])
    """

    def __init__(self, encoder: nn.Module, *, num_classes: int, embed_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = Dropout(dropout)
        self.dense = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, num_classes)
        for linear in (self.dense, self.out_proj):
            initialise(linear, "normal")

    def logits(self, batch: Batch) -> Tensor:
        """Scores `b classes`."""
        encoder: Encodes = self.encoder  # type: ignore[assignment]  # a module with that method
        encoded = encoder.encode(batch)
        x = torch.tanh(self.dense(self.dropout(encoded.x[:, encoded.num_prefix_tokens])))
        scores: Tensor = self.out_proj(self.dropout(x))
        return scores

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        """Loss as a sum over the sentences; `batch.labels` is Long `b`, or float `b` for regression.

        Raises:
            ValueError: if the batch has no labels.
        """
        del update
        if batch.labels is None:
            raise ValueError("the batch has no labels; classification needs them")
        scores = self.logits(batch).float()
        if scores.shape[1] == 1:
            loss = F.mse_loss(scores[:, 0], batch.labels.float(), reduction="sum")
        else:
            loss = F.cross_entropy(scores, batch.labels, reduction="sum")
        return StepOutput(loss_sum=loss, sample_size=batch.size, metrics={"loss": (loss.detach(), batch.size)})
