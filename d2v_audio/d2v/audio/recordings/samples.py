"""Samples and batches of recordings: random crops, padding and labels."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from d2v.audio.recordings.labelling import Labelling
from d2v.audio.recordings.reading import Reader
from d2v.audio.recordings.sources import Recordings
from d2v.core.data import BrokenSampleError, Identity, sample_seed
from d2v.core.model import Batch

_DRAWS = 2**53  # numbers that `sample_seed` returns


@frozen(kw_only=True)
class Sample:
    """One recording.

    Args:
        waveform: float32 `s`.
        place: where crops are, from 0 = at the beginning to 1 = at the end.
        label: in the form of its `Labelling`; None = no labels.
        id: in the source.
    """

    waveform: Tensor
    place: float
    label: Any
    id: int


class RecordingSamples:
    """Samples of a source.

    Args:
        source: the recordings.
        reader: reads them.
        kept: ids of the recordings that are used, Long.
        stated: whether the lengths of the source are those that files must have.
        max_samples: recordings are cropped at random to this length; None = they are not cropped.
        labelling: their labels; None = no labels.
    """

    def __init__(
        self,
        source: Recordings,
        reader: Reader,
        *,
        kept: Tensor,
        stated: bool,
        max_samples: int | None,
        labelling: Labelling | None,
    ) -> None:
        self.source, self.reader, self.kept = source, reader, kept
        self.stated, self.max_samples, self.labelling = stated, max_samples, labelling

    def __len__(self) -> int:
        return len(self.kept)

    def name(self, id: int) -> str:
        """Name of the recording in messages."""
        return self.source.name(id)

    def identity(self) -> Identity:
        """Identity of the recordings, from their names and sizes."""
        return Identity.of(self.source.keys()[self.kept], lambda indices: self.source.sizes(self.kept[indices]))

    def get(self, id: int, *, seed: int, epoch: int) -> Sample:
        """Return a recording; crops are drawn by (seed, epoch, id)."""
        id = int(self.kept[id])
        path = self.source.path(id)
        waveform = self.reader.read(path)
        if self.stated and self.source.lengths is not None and len(waveform) != int(self.source.lengths[id]):
            raise BrokenSampleError(
                path,
                f"it has {len(waveform)} samples, but the manifest says {int(self.source.lengths[id])}; write the "
                "manifest again",
            )
        place = sample_seed(seed=seed, epoch=epoch, id=id) / _DRAWS
        label = None if self.labelling is None else self.labelling.get(id)
        if self.max_samples is not None:
            waveform = cropped(waveform, self.max_samples, place)
        return Sample(waveform=waveform, place=place, label=label, id=id)


@frozen(kw_only=True)
class Collate:
    """Make a batch of samples.

    Args:
        crop: whether all are cropped to the shortest, as in pretraining; otherwise they are padded with zeros to the
            longest (the original pads to the limit of the bucket if there are buckets).
        labelling: their labels; None = no labels.
    """

    crop: bool
    labelling: Labelling | None = None

    def __call__(self, samples: list[Sample], ids: Tensor) -> Batch:
        """Collate samples; the batch has the ids of the source."""
        del ids  # indices among the kept recordings
        if self.crop:
            shortest = min(len(one.waveform) for one in samples)
            source = torch.stack([cropped(one.waveform, shortest, one.place) for one in samples])
            padding = None
        else:
            source, padding = padded([one.waveform for one in samples])
        labels, label_lengths = None, None
        if self.labelling is not None:
            labels, label_lengths = self.labelling.collate([one.label for one in samples])
        return Batch(
            source=source,
            padding=padding,
            ids=torch.tensor([one.id for one in samples]),
            labels=labels,
            label_lengths=label_lengths,
        )


def cropped(waveform: Tensor, length: int, place: float) -> Tensor:
    """Crop a waveform `s` to at most `length` samples.

    A crop of a crop at the same place is the crop of the whole, up to the rounding of one sample.

    Args:
        waveform: to crop.
        length: of the result; a shorter waveform stays as it is.
        place: from 0 to below 1; if it is uniform, so is the start of the crop.

    >>> cropped(torch.arange(10), 4, 0.5)
    tensor([3, 4, 5, 6])
    """
    more = len(waveform) - length
    if more <= 0:
        return waveform
    start = int(place * (more + 1))
    return waveform[start : start + length]


def padded(waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Pad waveforms with zeros at the end; return `b s`, and the padding Bool `b s`, None if nothing is padded."""
    lengths = torch.tensor([len(one) for one in waveforms])
    source = torch.nn.utils.rnn.pad_sequence(list(waveforms), batch_first=True)
    padding = torch.arange(source.shape[1]) >= lengths[:, None]
    return source, padding if bool(padding.any()) else None
