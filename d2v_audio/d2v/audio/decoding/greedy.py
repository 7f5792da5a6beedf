"""Greedy decoding: the best symbol of each frame."""

from itertools import groupby

from torch import Tensor

from d2v.audio.decoding.hypothesis import Hypothesis


def best_path(scores: Tensor, blank: int) -> Hypothesis:
    """Decode one recording: the best symbol of each frame, then repeats are merged and blanks removed.

    Args:
        scores: float `t v`, log-probabilities.
        blank: number of the blank.

    >>> import torch
    >>> scores = torch.tensor([[0.0, -3, -3], [-3, -1, -3], [-3, -1, -3], [-3, -3, -2]])
    >>> one = best_path(scores, blank=0)
    >>> one.tokens, one.timesteps, one.score
    ((1, 2), (1, 3), -4.0)
    """
    best = scores.max(-1)
    path = best.indices.tolist()
    tokens, timesteps, frame = [], [], 0
    for number, run in groupby(path):
        if number != blank:
            tokens.append(number)
            timesteps.append(frame)
        frame += len(list(run))
    return Hypothesis(
        path=tuple(path), tokens=tuple(tokens), timesteps=tuple(timesteps), score=float(best.values.sum())
    )
