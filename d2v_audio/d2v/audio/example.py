"""Made-up sounds for a first look at a model."""

import math

import torch
import torch.nn.functional as F

from d2v.core.model import AdapterConfig, Batch

_SAMPLES, _RATE = 16_000, 16_000


def example_batch(adapter: AdapterConfig) -> Batch:
    """Two sounds `2 s` of one second: tones that rise, with some noise; always the same, mean 0 and variance 1.

    >>> example_batch(adapter=None).source.shape
    torch.Size([2, 16000])
    """
    del adapter
    random = torch.Generator().manual_seed(0)
    time = torch.arange(_SAMPLES) / _RATE
    pitch = torch.tensor([[110.0], [190.0]]) * (1 + time)
    tones = sum(torch.sin(2 * math.pi * harmonic * pitch * time) / harmonic for harmonic in (1, 2, 3, 5))
    return Batch(source=F.layer_norm(tones + 0.1 * torch.randn(2, _SAMPLES, generator=random), (_SAMPLES,)))
