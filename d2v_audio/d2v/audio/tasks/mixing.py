"""Mixing of recordings in training (mixup of sources; Tokozume et al. 2018 for the gains)."""

import dataclasses
from typing import Literal

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.audio.tasks.levels import loudness
from d2v.core.model import Batch
from d2v.core.validators import fraction, one_of

GainMode = Literal["none", "rms", "a-weighting"]
_SMALLEST = 1e-6


@frozen(kw_only=True)
class SourceMixup:
    """Mixes each recording of a batch with another one: (r x + (1 - r) x') / sqrt(r^2 + (1 - r)^2).

    r is uniform from `low` to 1. Padding stays that of x. Numbers are drawn from PyTorch's generator, which the loop
    seeds for each update.

    Args:
        low: smallest r.
        prob: probability that a recording is mixed.
        same: whether all recordings of a batch have the same r.
        labels: whether the labels are mixed as well, r y + (1 - r) y'.
        gain: "none"; else r becomes 1 / (1 + 10^((G - G') / 20) (1 - r) / r) with the levels G in dB, so that r is the
            fraction that is heard; see `loudness`.
        sample_rate: in Hz, for the gain.

    Raises:
        ValueError: if a value is out of its range.

    >>> mixup = SourceMixup(low=0.5)
    >>> batch = Batch(source=torch.tensor([[1.0], [-1.0]]), labels=torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> mixup.mix(batch, r=torch.tensor([0.5]), partner=torch.tensor([1, 0])).labels
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """

    low: float = field(default=0.5, validator=fraction)
    prob: float = field(default=1.0, validator=fraction)
    same: bool = True
    labels: bool = True
    gain: GainMode = field(default="none", validator=one_of(GainMode))
    sample_rate: int = field(default=16_000, validator=ge(1))

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with mixed sources and labels."""
        b, device = batch.size, batch.source.device
        low = max(_SMALLEST, self.low)
        r = low + (1 - low) * torch.rand(1 if self.same else b, device=device)
        if self.prob < 1:
            r = torch.where(torch.rand(b, device=device) < self.prob, r, 1.0)
        return self.mix(batch, r=r, partner=torch.randperm(b, device=device))

    def mix(self, batch: Batch, *, r: Tensor, partner: Tensor) -> Batch:
        """Return the batch, mixed with given numbers.

        Args:
            batch: sources `b ...`; labels `b c`, if they are mixed.
            r: `b`, or `1` for all recordings.
            partner: Long `b`, number of the recording that each is mixed with.
        """
        r = r.expand(batch.size)
        if self.gain != "none":
            level = loudness(batch.source, gain=self.gain, sample_rate=self.sample_rate)
            r = 1 / (1 + 10 ** ((level - level[partner]) / 20) * (1 - r) / r)
        own = r.reshape(-1, *[1] * (batch.source.dim() - 1)).to(batch.source.dtype)
        source = own * batch.source + (1 - own) * batch.source[partner]
        labels = batch.labels
        if self.labels and labels is not None:
            labels = r[:, None] * labels + (1 - r[:, None]) * labels[partner]
        return dataclasses.replace(batch, source=source / (own.square() + (1 - own).square()).sqrt(), labels=labels)
