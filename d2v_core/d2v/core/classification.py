"""What classification tasks of all modalities share: the loss as the output of a step, and predictions as rows."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from d2v.core.model import Batch, StepOutput

__all__ = ["class_rows", "cross_entropy_step"]

_SHOWN = 5


def cross_entropy_step(scores: Tensor, batch: Batch, *, label_smoothing: float = 0.0) -> StepOutput:
    """Cross-entropy as a sum over the samples, in float32.

    Args:
        scores: `b c`.
        batch: with labels Long `b`.
        label_smoothing: fraction of the target that is distributed over all classes.

    Returns:
        The loss, and metrics `loss` and `accuracy` (in percent).

    >>> import torch
    >>> batch = Batch(source=torch.zeros(2, 1), labels=torch.tensor([1, 0]))
    >>> cross_entropy_step(torch.zeros(2, 4), batch).loss_sum / 2
    tensor(1.3863)
    """
    assert batch.labels is not None
    scores = scores.float()
    loss = F.cross_entropy(scores, batch.labels, reduction="sum", label_smoothing=label_smoothing)
    correct = (scores.detach().argmax(1) == batch.labels).sum()
    metrics = {"loss": (loss.detach(), batch.size), "accuracy": (100.0 * correct, batch.size)}
    return StepOutput(loss_sum=loss, sample_size=batch.size, metrics=metrics)


def class_rows(scores: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the class, its probability and the five likeliest classes of each sample.

    Args:
        scores: `b c`.
        names: of the classes.

    >>> import torch
    >>> class_rows(torch.tensor([[0.0, 1.0]]), ["cat", "dog"])
    [{'class': 'dog', 'probability': 0.731059, 'likeliest': 'dog=0.7311 cat=0.2689'}]
    """
    probabilities = scores.float().softmax(1)
    ranked = probabilities.argsort(dim=1, descending=True, stable=True)[:, :_SHOWN].tolist()
    rows = []
    for row, order in zip(probabilities.tolist(), ranked, strict=True):
        likeliest = " ".join(f"{names[number]}={row[number]:.4f}" for number in order)
        rows.append({"class": names[order[0]], "probability": round(row[order[0]], 6), "likeliest": likeliest})
    return rows
