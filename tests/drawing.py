"""Draws of masks that several tests share, and what they are compared by."""

import math

import torch
from hypothesis import settings

from d2v.core.masks import Draw, Mask, SpanMasker

SPANS = SpanMasker(mask_prob=0.5, mask_length=5)
quick = settings(max_examples=40, deadline=None)


def draw_for(b: int, seed: int = 0, update: int = 0) -> Draw:
    return Draw(seed=seed, update=update, ids=torch.arange(b) * 31 + 5)


def same(a: Mask, b: Mask) -> bool:
    channels = (a.channels is None) == (b.channels is None)
    if a.channels is not None and b.channels is not None:
        channels = torch.equal(a.channels, b.channels)
    return channels and torch.equal(a.hidden, b.hidden)


def chi_square(counts: torch.Tensor) -> None:
    """Equally likely outcomes: the statistic lies within 5 deviations of its mean, on both sides."""
    expected, freedom = counts.sum() / len(counts), len(counts) - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)
