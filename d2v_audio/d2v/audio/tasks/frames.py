"""Encode recordings for a task: frames with their padding, and masks in training."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d2v.core.finite import some_of
from d2v.core.masks import Mask, Masker
from d2v.core.model import Batch, Encodes, Layout, Local
from d2v.core.model.masking import mask_of, prepared


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Encoded recordings.

    Args:
        x: `b t d`, without extra tokens.
        padding: Bool `b t`, True = padding, or None = no padding.
        class_token: `b d`, the last extra token, or None = there are no extra tokens.
        known: number of frames of each recording, if it is known; None = it is counted.
    """

    x: Tensor
    padding: Tensor | None
    class_token: Tensor | None = None
    known: tuple[int, ...] | None = None

    @property
    def lengths(self) -> Tensor:
        """Number of frames of each recording, Long `b`; on the CPU if it is known."""
        if self.known is not None:
            return torch.tensor(self.known)
        b, t = self.x.shape[:2]
        if self.padding is None:
            return torch.full((b,), t, device=self.x.device)
        return (~self.padding).sum(1)


def encode_frames(
    encoder: nn.Module, batch: Batch, *, masker: Masker | None = None, seed: int = 0, update: int | None = None
) -> Frames:
    """Encode recordings; in training, frames and channels are masked.

    Args:
        encoder: a `Backbone` that keeps hidden positions, or any other module with its `encode` method.
        batch: b recordings; its mask, if it has one, is used instead of the masker.
        masker: draws the masks; None = nothing is masked.
        seed: seed of the masks.
        update: number of finished updates; None = no training, so nothing is masked.

    Raises:
        ValueError: naming the recordings that are shorter than one frame.

    >>> from d2v.audio import WaveformAdapter
    >>> from d2v.core.model import Backbone
    >>> from d2v.core.nn import TransformerEncoder
    >>> adapter = WaveformAdapter(embed_dim=16)
    >>> backbone = Backbone(adapter, TransformerEncoder.stack(16, depth=1, num_heads=2), visible_only=False)
    >>> encode_frames(backbone, Batch(source=torch.zeros(2, 16000))).lengths
    tensor([49, 49])
    """
    front: Callable[[Batch], Local] | None = getattr(encoder, "front", None)
    local = None if front is None else front(batch)
    if local is not None and local.padding is not None and batch.known is None:
        _check_lengths(batch, local.padding)
    mask = None
    if update is not None:
        mask = batch.mask if masker is None else mask_of(batch, local, masker, seed=seed, update=update)
    encodes: Encodes = encoder  # type: ignore[assignment]  # a module with that method
    encoded = encodes.encode(batch, mask, local=local)
    extra, padding = encoded.num_prefix_tokens, encoded.padding
    return Frames(
        x=encoded.x[:, extra:],
        padding=None if padding is None else padding[:, extra:],
        class_token=encoded.class_token if extra else None,
        known=None if batch.known is None else batch.known.lengths,
    )


def prepared_recordings(encoder: nn.Module, batch: Batch, *, masker: Masker | None, seed: int, update: int) -> Batch:
    """Return recordings on the CPU with the masks that `encode_frames` would draw; see `Data2Vec.prepared`.

    Args:
        encoder: as for `encode_frames`.
        batch: b recordings.
        masker: draws the masks; None = nothing is masked but by the mask of the batch.
        seed: seed of the masks.
        update: number of finished updates when the batch is used.

    Raises:
        ValueError: naming the recordings that are shorter than one frame.
    """

    def mask(layout: Layout) -> Mask | None:
        if layout.padding is not None:
            _check_lengths(batch, layout.padding)
        return batch.mask if masker is None else mask_of(batch, layout, masker, seed=seed, update=update)

    return prepared(batch, encoder, mask)


def _check_lengths(batch: Batch, padding: Tensor) -> None:
    """Without a valid frame, attention has nothing to attend to, and its result is NaN."""
    if bool((empty := padding.all(1)).any()):
        numbers = empty.nonzero()[:, 0]
        ids = (numbers if batch.ids is None else batch.ids[numbers]).tolist()
        raise ValueError(f"recordings shorter than one frame: {some_of(ids)}; leave them out")
