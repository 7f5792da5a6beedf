"""Classification of recordings on top of an encoder: one class each, or any number of classes.

The modules take plain values and wrap any encoder; `classification.py` has the tasks that a recipe names.
"""

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from d2v.audio.tasks.frames import encode_frames, prepared_recordings
from d2v.audio.tasks.mixing import SourceMixup
from d2v.audio.tasks.pooling import FrameClassifier
from d2v.core.classification import cross_entropy_step
from d2v.core.masks import Masker
from d2v.core.model import Batch, StepOutput


class _FramesModel(nn.Module):
    """An encoder and a head for its frames, with masks in training."""

    def __init__(self, encoder: nn.Module, head: FrameClassifier, *, masker: Masker | None, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.masker = masker
        self.seed = seed

    def prepared(self, batch: Batch, *, update: int) -> Batch:
        """Return a batch on the CPU with its masks; see `Data2Vec.prepared`."""
        return prepared_recordings(self.encoder, batch, masker=self.masker, seed=self.seed, update=update)

    def logits(self, batch: Batch, *, update: int | None = None) -> Tensor:
        """Scores `b c` in float32; an update masks as in training."""
        frames = encode_frames(self.encoder, batch, masker=self.masker, seed=self.seed, update=update)
        scores: Tensor = self.head(frames)
        return scores


class AudioClassifier(_FramesModel):
    """Classify recordings into one class each; the loss is cross-entropy.

    Args:
        encoder: a `Backbone` that keeps hidden positions, or any other module with its `encode` method.
        head: from frames to scores.
        masker: masks of frames and channels in training; None = no masks.
        seed: seed of the masks.

    >>> import torch
    >>> from d2v.audio import WaveformAdapter
    >>> from d2v.core.model import Backbone
    >>> from d2v.core.nn import TransformerEncoder
    >>> adapter = WaveformAdapter(embed_dim=16)
    >>> backbone = Backbone(adapter, TransformerEncoder.stack(16, depth=1, num_heads=2), visible_only=False)
    >>> classifier = AudioClassifier(backbone, FrameClassifier(16, 4, pooling="mean"))
    >>> classifier.logits(Batch(source=torch.zeros(2, 16000))).shape
    torch.Size([2, 4])
    """

    def __init__(
        self, encoder: nn.Module, head: FrameClassifier, *, masker: Masker | None = None, seed: int = 0
    ) -> None:
        super().__init__(encoder, head, masker=masker, seed=seed)

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        """Cross-entropy as a sum over the recordings; `batch.labels` is Long `b`.

        Returns:
            The loss, and metrics `loss` and `accuracy` (in percent).

        Raises:
            ValueError: if the batch has no labels, or a recording is shorter than one frame.
        """
        if batch.labels is None:
            raise ValueError("the batch has no labels; classification needs them")
        return cross_entropy_step(self.logits(batch, update=update if self.training else None), batch)


class AudioTagger(_FramesModel):
    """Find all classes of each recording (AudioSet); the loss is binary cross-entropy (data2vec 1.0, section 5.2).

    Args:
        encoder: a `Backbone` that keeps hidden positions, or any other module with its `encode` method.
        head: from frames to scores.
        mixup: mixing of recordings in training; None = no mixing.
        masker: masks of frames and channels in training; None = no masks.
        seed: seed of the masks.

    >>> import torch
    >>> from d2v.audio import WaveformAdapter
    >>> from d2v.core.model import Backbone
    >>> from d2v.core.nn import TransformerEncoder
    >>> adapter = WaveformAdapter(embed_dim=16)
    >>> backbone = Backbone(adapter, TransformerEncoder.stack(16, depth=1, num_heads=2), visible_only=False)
    >>> tagger = AudioTagger(backbone, FrameClassifier(16, 4, pooling="linear-softmax"))
    >>> tagger.logits(Batch(source=torch.zeros(2, 16000))).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: FrameClassifier,
        *,
        mixup: SourceMixup | None = None,
        masker: Masker | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, head, masker=masker, seed=seed)
        self.mixup = mixup

    def prepared(self, batch: Batch, *, update: int) -> Batch:
        """Return a batch on the CPU with its masks; without them if the step mixes recordings first."""
        return batch if self.mixup is not None else super().prepared(batch, update=update)

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        """Binary cross-entropy as a sum over recordings and classes; `batch.labels` is Bool or float `b c`.

        Returns:
            The loss; its count is the number of labels of all recordings, at least 1, as published.

        Raises:
            ValueError: if the batch has no labels, or a recording is shorter than one frame.
        """
        if batch.labels is None:
            raise ValueError("the batch has no labels; tagging needs them")
        labels = batch.labels.float()
        mixed = dataclasses.replace(batch, labels=labels)
        if self.training and self.mixup is not None:
            mixed = self.mixup(mixed)
        logits = self.logits(mixed, update=update if self.training else None)
        assert mixed.labels is not None
        loss = F.binary_cross_entropy_with_logits(logits, mixed.labels, reduction="sum")
        return StepOutput(loss_sum=loss, sample_size=max(1, round(float(labels.sum()))))
