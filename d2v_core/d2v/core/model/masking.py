"""Masks of a batch: given with it, or drawn from the ids of its samples."""

import torch

from d2v.core.masks import Draw, Mask, Masker
from d2v.core.model.batch import Batch, Layout, Local, Padded
from d2v.core.model.batcher import MultimaskBatcher


def mask_of(
    batch: Batch, local: Local | Layout | None, masker: Masker, *, seed: int, update: int, num_masks: int = 1
) -> Mask:
    """Return the batch's mask, or one drawn from (seed, update, ids).

    Args:
        batch: b samples; without ids, their numbers are the index in the batch.
        local: local features of the batch, or their layout; None = the axes and padding of the batch are those of the
            positions.
        masker: draws the mask if the batch has none.
        seed: seed of the masks.
        update: number of finished updates.
        num_masks: m, number of views of each sample.

    Raises:
        ValueError: as the masker, if a sample is too short.

    >>> from d2v.core.masks import SpanMasker
    >>> masker = SpanMasker(mask_prob=0.5, mask_length=2)
    >>> mask_of(Batch(source=torch.zeros(3, 10)), None, masker, seed=0, update=0).hidden.shape
    torch.Size([3, 10])
    """
    if batch.mask is not None:
        return batch.mask
    grid = tuple(batch.source.shape[1:]) if local is None else tuple(local.grid)
    padding = batch.padding if local is None else local.padding
    device = batch.source.device
    ids = torch.arange(batch.size, device=device) if batch.ids is None else batch.ids.to(device)
    lengths = None if padding is None else (~padding).sum(1)
    draw = Draw(seed=seed, update=update, ids=ids)
    return masker(batch.size, grid, num_masks=num_masks, draw=draw, lengths=lengths)


def padded_of(layout: Layout, mask: Mask) -> Padded:
    """Return whether any position of a layout, or any visible one, is padding; both must be on the CPU.

    >>> layout = Layout(grid=(3,), padding=torch.tensor([[False, False, True]]))
    >>> padded_of(layout, Mask(hidden=torch.tensor([[False, True, True]])))
    Padded(whole=True, visible=False)
    """
    padding = layout.padding
    if padding is None or not padding.any():
        return Padded(whole=False, visible=False)
    counts = mask.hidden.sum(1)
    if counts.min() < counts.max() or counts.max() == mask.hidden.shape[1]:
        return Padded(whole=True)  # then no position may be dropped
    return Padded(whole=True, visible=bool(MultimaskBatcher(mask).visible(padding).any()))
