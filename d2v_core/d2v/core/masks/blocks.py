"""Masks of blocks around random centres, hidden or kept visible: images and speech in data2vec 2.0."""

import math

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.masks.draw import Source, below, bits, device_of
from d2v.core.masks.mask import Mask
from d2v.core.masks.masker import adjusted, among, check_visible, inside, lowest, valid_positions
from d2v.core.validators import fraction, probability

_CENTRES, _ADJUST, _TRIM = range(3)  # streams


@frozen(kw_only=True)
class InverseBlockMasker:
    """Keeps blocks of positions visible, or hides them (data2vec 2.0, section 3).

    With v valid positions and q = 1 - mask_prob (`inverse`) or mask_prob (otherwise), floor(v (q + mask_prob_adjust) /
    l^axes (1 + mask_dropout)) centres are drawn with repetition. Squares or segments of l = `mask_length` around them
    are chosen and cut at the border. Random single positions are added or dropped until exactly floor(v q) are chosen.

    Args:
        mask_prob: fraction of positions to hide, in [0, 1).
        mask_length: side of a block, at least 1 and not above the longer side of a two-dimensional grid.
        mask_prob_adjust: r, adds centres to compensate for overlaps; negative values remove centres.
        inverse: True = chosen positions stay visible, all others are hidden (images). False = chosen positions are
            hidden (the speech masks of the published data set).
        mask_dropout: fraction of additional centres; the final count does not change.

    Raises:
        ValueError: on a value out of range; in the call, if a row would keep no visible position.

    >>> from d2v.core.masks import Draw
    >>> masker = InverseBlockMasker(mask_prob=0.8, mask_length=3, mask_prob_adjust=0.07)
    >>> mask = masker(2, (14, 14), num_masks=16, draw=Draw(seed=0, update=1, ids=torch.tensor([7, 8])))
    >>> mask.hidden.shape, mask.visible.shape
    (torch.Size([32, 196]), torch.Size([32, 39]))
    """

    mask_prob: float = field(validator=probability)
    mask_length: int = field(validator=ge(1))
    mask_prob_adjust: float = field(default=0.0, validator=ge(-1))
    inverse: bool = True
    mask_dropout: float = field(default=0.0, validator=fraction)

    def __call__(
        self, b: int, grid: tuple[int, ...], *, num_masks: int = 1, draw: Source, lengths: Tensor | None = None
    ) -> Mask:
        """Draw a mask, `hidden` Bool `(b m) t`; see `Masker`."""
        valid = valid_positions(b, grid, num_masks, lengths)
        if len(grid) == 2 and self.mask_length > max(grid):  # a sequence may be shorter than a block, which is then cut
            raise ValueError(f"mask_length={self.mask_length} is longer than both sides of the grid {tuple(grid)}")
        t, device = math.prod(grid), device_of(draw)
        target = (valid.double() * self._fraction).floor().long()
        count = valid - target if self.inverse else target
        check_visible(count, valid, num_masks, "leave out samples that short, or lower mask_prob")

        allowed = inside(valid, t, device)
        chosen = self._blocks(b, grid, num_masks, draw, valid)
        chosen = adjusted(chosen, allowed, bits(draw, b, num_masks, t, stream=_ADJUST), target.to(device))
        hidden = allowed & ~chosen if self.inverse else chosen
        if lengths is not None:
            order = bits(draw, b, num_masks, t, stream=_TRIM)
            hidden = lowest(among(order, hidden), count.min().expand_as(count).to(device))
        return Mask(hidden=hidden, num_masks=num_masks)

    @property
    def _fraction(self) -> float:  # of the positions that are chosen
        return 1 - self.mask_prob if self.inverse else self.mask_prob

    def _blocks(self, b: int, grid: tuple[int, ...], num_masks: int, draw: Source, valid: Tensor) -> Tensor:
        """Return the chosen positions before the count is adjusted, Bool `(b m) t`."""
        t, device = math.prod(grid), device_of(draw)
        height, width = grid if len(grid) == 2 else (1, t)
        # The same operations as in the reference, so that floor is applied to the same floating-point number.
        wanted = valid.double() * (self._fraction + self.mask_prob_adjust) / self.mask_length ** len(grid)
        count = (wanted * (1 + self.mask_dropout)).floor().long().clamp(min=0)
        most = int(count.max())
        centre = below(bits(draw, b, num_masks, most, stream=_CENTRES), valid.to(device)[:, None])  # r c

        offset = torch.arange(self.mask_length, device=device) - self.mask_length // 2
        row = (centre // width)[..., None] + (offset if len(grid) == 2 else 0)
        column = (centre % width)[..., None] + offset
        cells = row.clamp(0, height - 1)[..., :, None] * width + column.clamp(0, width - 1)[..., None, :]  # r c l l
        drawn = torch.arange(most, device=device) < count.to(device)[:, None]
        cells = cells.where(drawn[..., None, None], t)  # surplus centres set an extra column, which is cut off
        chosen = torch.zeros(b * num_masks, t + 1, dtype=torch.bool, device=device)
        return chosen.scatter_(1, cells.flatten(1), True)[:, :t] & inside(valid, t, device)
