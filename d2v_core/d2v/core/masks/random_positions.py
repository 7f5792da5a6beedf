"""Masks of independently drawn positions: text in data2vec 2.0."""

import math

import torch
from attrs import field, frozen
from torch import Tensor

from d2v.core.masks.draw import Source, bits, device_of
from d2v.core.masks.mask import Mask
from d2v.core.masks.masker import among, check_visible, inside, lowest, valid_positions
from d2v.core.validators import probability

_ORDER = 0  # stream


@frozen(kw_only=True)
class RandomMasker:
    """Hides single positions: floor(v (1 - mask_prob)) of v valid positions stay visible (published: `mask_length` 1).

    Args:
        mask_prob: fraction of positions to hide, in [0, 1); 0.48 for the published base text model.
        pad_aware: whether `lengths` are used. False = as in the published text runs: padded positions may be hidden and
            predicted, or stay visible.

    Raises:
        ValueError: on a value out of range; in the call, if a row would keep no visible position.

    >>> masker = RandomMasker(mask_prob=0.48)
    >>> mask = masker(2, (512,), num_masks=3, draw=torch.Generator().manual_seed(0))
    >>> mask.visible.shape
    torch.Size([6, 266])
    """

    mask_prob: float = field(validator=probability)
    pad_aware: bool = True

    def __call__(
        self, b: int, grid: tuple[int, ...], *, num_masks: int = 1, draw: Source, lengths: Tensor | None = None
    ) -> Mask:
        """Draw a mask, `hidden` Bool `(b m) t`; see `Masker`."""
        valid = valid_positions(b, grid, num_masks, lengths)
        t, device = math.prod(grid), device_of(draw)
        if not self.pad_aware:
            valid = torch.full_like(valid, t)
        count = valid - (valid.double() * (1 - self.mask_prob)).floor().long()  # the reference's floating point
        check_visible(count, valid, num_masks, "leave out samples that short, or lower mask_prob")
        keys = among(bits(draw, b, num_masks, t, stream=_ORDER), inside(valid, t, device))
        # The first positions of a random order: trimming to the smallest count hides a subset of the row's positions.
        hidden = lowest(keys, count.min().expand_as(count).to(device))
        return Mask(hidden=hidden, num_masks=num_masks)
