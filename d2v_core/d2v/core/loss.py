"""Regression loss between predictions and targets, as a sum and a count.

Sums and counts of micro-batches and workers can be added, while the weights in a mean would depend on how the batch is
split. The loss does not depend on masks or models: the caller selects the rows.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import optional
from torch import Tensor

from d2v.core.validators import not_negative, one_of, positive

Reduction = Literal["sum", "mean"]


@frozen(kw_only=True)
class RegressionLoss:
    """L2 or smooth L1 loss between predictions and targets (data2vec, section 3.4).

    With x = prediction - target: e = x^2 if beta = 0, else x^2 / (2 beta) where |x| < beta, |x| - beta / 2 elsewhere.
    "sum": scale * sum of e over positions and channels, with count n.
    "mean" (1.0 image models): scale * (mean of e over positions and channels + variance_weight * V), with count 1;
    V = mean over channels of relu(variance_margin - sqrt(unbiased variance of the predictions + 1e-6)).
    Computed in float32, also under autocast.

    Args:
        beta: threshold between the quadratic and the linear part of smooth L1; 0 = L2.
        scale: factor on the loss; None = 1 / sqrt(d) with "sum", 1 with "mean".
        reduction: "sum" or "mean" over positions and channels.
        variance_weight: weight of V; only with "mean".
        variance_margin: standard deviation below which V is above 0.

    Raises:
        ValueError: if a value is out of range, or `variance_weight` is given with "sum".

    >>> loss = RegressionLoss(scale=0.5)
    >>> loss(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    (tensor(3.), 2)
    """

    beta: float = field(default=0.0, validator=not_negative)
    scale: float | None = field(default=None, validator=optional(positive))
    reduction: Reduction = field(default="sum", validator=one_of(Reduction))
    variance_weight: float = field(default=0.0, validator=not_negative)
    variance_margin: float = field(default=0.5, validator=not_negative)

    def __attrs_post_init__(self) -> None:
        if self.variance_weight and self.reduction == "sum":
            raise ValueError(f"variance_weight={self.variance_weight} needs reduction='mean'; use it or set it to 0")

    def __call__(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """Compute the loss over the hidden positions.

        Args:
            predictions: `n d`.
            targets: `n d`.

        Returns:
            The sum, a float32 scalar, and the count to divide it by: n, or 1 with reduction "mean".

        Raises:
            ValueError: if the shapes differ, or do not have two axes.
        """
        if predictions.dim() != 2:
            raise ValueError(f"predictions must have the shape n d, not {tuple(predictions.shape)}")
        total = self.scaled_sum(predictions, targets)
        if self.reduction == "sum":
            return total, predictions.shape[0]
        loss = total / max(predictions.numel(), 1)
        if self.variance_weight:
            weight = self._factor(predictions) * self.variance_weight
            loss = loss + weight * _low_std(predictions, self.variance_margin)
        return loss, 1

    def scaled_sum(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Compute the sum of e times scale, for terms with another count (class token, pixels).

        Args:
            predictions: `... d`.
            targets: `... d`.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: if the shapes differ.
        """
        if predictions.shape != targets.shape:
            shapes = f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
            raise ValueError(f"predictions and targets must have the same shape, not {shapes}")
        # Explicitly float32: half-precision sums over a batch overflow.
        p, t = predictions.float(), targets.float()
        if self.beta:
            error = F.smooth_l1_loss(p, t, reduction="sum", beta=self.beta)
        else:
            error = F.mse_loss(p, t, reduction="sum")
        return self._factor(predictions) * error

    def _factor(self, predictions: Tensor) -> float:
        if self.scale is not None:
            return self.scale
        return 1.0 if self.reduction == "mean" else 1 / math.sqrt(predictions.shape[-1])


def _low_std(x: Tensor, margin: float) -> Tensor:
    x = x.float()
    # Not Tensor.var, which is NaN for a single row.
    variance = (x - x.mean(0)).square().sum(0) / max(x.shape[0] - 1, 1)
    return torch.relu(margin - torch.sqrt(variance + 1e-6)).mean()
