"""Masks of a batch: given with it, or drawn from the ids of its samples."""

import dataclasses
import math
from collections.abc import Callable

import torch
from attrs import evolve
from torch import nn

from d2v.core.masks import Draw, Mask, Masker
from d2v.core.model.batch import Batch, Known, Layout, Local
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


def prepared(batch: Batch, encoder: nn.Module, mask: Callable[[Layout], Mask | None]) -> Batch:
    """Return a batch on the CPU with all that a step can know before it runs, so that it does not ask the device.

    A batch on another device, and one whose layout the encoder does not know before it computes features, is returned
    as it is. So is one without positions, which the front end refuses.

    Args:
        batch: b samples.
        encoder: a `Backbone`, or another encoder.
        mask: draws the mask of a layout, or returns None if nothing is masked.
    """
    layout = layout_of(batch, encoder) if batch.source.device.type == "cpu" else None
    if layout is None or 0 in layout.grid:
        return batch
    drawn = mask(layout)
    return dataclasses.replace(batch, mask=drawn, known=_known(batch, layout, drawn))


def layout_of(batch: Batch, encoder: nn.Module) -> Layout | None:
    """Return the layout of a batch's positions; None if the encoder does not know it before it computes features."""
    if not callable(getattr(encoder, "front", None)):
        return Layout(grid=tuple(batch.source.shape[1:]), padding=batch.padding)
    layout: Callable[[Batch], Layout | None] | None = getattr(encoder, "layout", None)
    return None if layout is None else layout(batch)


def _known(batch: Batch, layout: Layout, mask: Mask | None) -> Known:
    padding, whole = layout.padding, (math.prod(layout.grid),) * batch.size
    if padding is None or not padding.any():
        return Known(padded=False, visible_padded=False, lengths=whole)
    known = Known(padded=True, lengths=tuple((~padding).sum(1).tolist()))
    if mask is None:
        return known
    counts = mask.hidden.sum(1)
    if counts.min() < counts.max() or counts.max() == mask.hidden.shape[1]:
        return known  # no position may be dropped
    return evolve(known, visible_padded=bool(MultimaskBatcher(mask).visible(padding).any()))
