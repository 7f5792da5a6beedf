"""From the frames of a recording to scores of classes."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from attrs.validators import ge
from torch import Tensor, nn

from d2v.audio.tasks.frames import Frames
from d2v.core.nn import Dropout, initialise
from d2v.core.validators import check, must, one_of, positive

Pooling = Literal[
    "linear-softmax",
    "mean",
    "max",
    "mean-sigmoid",
    "mean-features",
    "projected-mean",
    "extremized-odds",
    "class-token",
]


class FrameClassifier(nn.Module):
    """Scores of classes: dropout, a linear layer for each frame, and pooling over the frames.

    With x_t = the scores of frame t and p_t = sigmoid(x_t), the logit of a class is

    - "linear-softmax": that of the probability sum p_t^2 / sum p_t (Wang, Li and Metze 2019);
    - "mean", "max": mean or maximum of x_t (the maximum of p_t has the same logit);
    - "mean-sigmoid": that of the probability mean p_t;
    - "mean-features": the linear layer of the mean of the features;
    - "projected-mean": the same, with a linear layer of the features before the mean;
    - "extremized-odds": `odds_factor` times the sum of x_t;
    - "class-token": the linear layer of the class token; frames are not used.

    Args:
        embed_dim: d.
        num_classes: c, number of classes.
        pooling: see above.
        eval_pooling: in evaluation mode; None = as in training.
        odds_factor: factor of "extremized-odds".
        dropout: dropout of the features before the linear layer.
        padding: "ignore" = padded frames are left out; "zero" = they are used with features of zero, as published.

    Raises:
        ValueError: if a value is out of its range, or only one of the poolings has the layer of "projected-mean".

    >>> head = FrameClassifier(16, 4, pooling="linear-softmax")
    >>> head(Frames(x=torch.zeros(2, 9, 16), padding=None)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        *,
        pooling: Pooling,
        eval_pooling: Pooling | None = None,
        odds_factor: float = 1.0,
        dropout: float = 0.0,
        padding: Literal["ignore", "zero"] = "ignore",
    ) -> None:
        super().__init__()
        in_evaluation = pooling if eval_pooling is None else eval_pooling
        check(ge(1), num_classes=num_classes)
        check(one_of(Pooling), pooling=pooling, eval_pooling=in_evaluation)
        check(positive, odds_factor=odds_factor)
        same_layers = must(lambda mode: (mode == _PROJECTED) == (pooling == _PROJECTED), f"like pooling={pooling!r}")
        check(same_layers, eval_pooling=in_evaluation)
        self.pooling, self.eval_pooling = pooling, in_evaluation
        self.odds_factor = odds_factor
        self.padding = padding
        self.dropout = Dropout(dropout)
        self.features = nn.Linear(embed_dim, embed_dim) if pooling == _PROJECTED else None
        self.proj = nn.Linear(embed_dim, num_classes)
        initialise(self, "xavier")

    def forward(self, frames: Frames) -> Tensor:
        """Logits `b c` in float32.

        Raises:
            ValueError: if the pooling is "class-token" and the encoder has none.
        """
        mode = self.pooling if self.training else self.eval_pooling
        if mode == "class-token":
            if frames.class_token is None:
                raise ValueError("the encoder has no class token: choose another pooling")
            return self._scores(self.dropout(frames.class_token))
        x, padding = frames.x, frames.padding
        if padding is not None and self.padding == "zero":
            x, padding = x.masked_fill(padding[..., None], 0), None
        hidden = None if padding is None else padding[..., None]
        x = self.dropout(x)
        if mode in (_PROJECTED, "mean-features"):
            return self._scores(_mean(x if self.features is None else self.features(x), hidden))
        x = self._scores(x)
        return self.odds_factor * _sum(x, hidden) if mode == "extremized-odds" else _POOLINGS[mode](x, hidden)

    def _scores(self, x: Tensor) -> Tensor:
        scores: Tensor = self.proj(x)
        return scores.float()


_PROJECTED = "projected-mean"


def _sum(x: Tensor, padding: Tensor | None) -> Tensor:
    return (x if padding is None else x.masked_fill(padding, 0)).sum(1)


def _mean(x: Tensor, padding: Tensor | None) -> Tensor:
    return x.mean(1) if padding is None else _sum(x, padding) / (~padding).sum(1)


def _max(x: Tensor, padding: Tensor | None) -> Tensor:
    return (x if padding is None else x.masked_fill(padding, -torch.inf)).amax(1)


def _log_sum(x: Tensor, padding: Tensor | None) -> Tensor:
    return (x if padding is None else x.masked_fill(padding, -torch.inf)).logsumexp(1)


def _linear_softmax(x: Tensor, padding: Tensor | None) -> Tensor:
    # p = sum p_t^2 / sum p_t and 1 - p = sum p_t (1 - p_t) / sum p_t: their ratio is finite where p rounds to 1.
    log_p = F.logsigmoid(x)
    return _log_sum(2 * log_p, padding) - _log_sum(log_p + F.logsigmoid(-x), padding)


def _mean_sigmoid(x: Tensor, padding: Tensor | None) -> Tensor:
    return _log_sum(F.logsigmoid(x), padding) - _log_sum(F.logsigmoid(-x), padding)


_POOLINGS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "linear-softmax": _linear_softmax,
    "mean": _mean,
    "max": _max,
    "mean-sigmoid": _mean_sigmoid,
}
