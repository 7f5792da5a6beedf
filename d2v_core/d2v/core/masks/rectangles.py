"""Masks of rectangles of random size and shape: images in data2vec 1.0 (BEiT's block masks)."""

import math

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.masks.draw import Source, bits, device_of, uniform
from d2v.core.masks.mask import Mask
from d2v.core.masks.masker import check_visible, inside, valid_positions
from d2v.core.validators import factor

_ATTEMPTS = 10  # failed attempts in a row that end a mask


@frozen(kw_only=True)
class BlockMasker:
    """Hides rectangles until `num_masked` positions are hidden, or ten attempts in a row fail.

    An attempt draws area ~ U(min_per_block, cap) with cap = min(positions still to hide, max_per_block), aspect =
    exp(U(ln min_aspect, -ln min_aspect)), height = round(sqrt(area aspect)), width = round(sqrt(area / aspect)) and a
    location. It is accepted if both sides are smaller than the grid's and it hides 1 to cap further positions. A row
    therefore hides at most `num_masked` positions, and counts may differ between rows.

    Args:
        num_masked: maximum number of hidden positions per row, at least 1; 120 of 14 x 14 for the published models.
        min_per_block: smallest area to draw, at least 1.
        max_per_block: largest area and largest number of new positions per attempt; None = `num_masked`.
        min_aspect: smallest aspect ratio, in (0, 1].

    Raises:
        ValueError: on a value out of range; in the call, if `num_masked` leaves a row no visible position, or the grid
            does not have two axes of at least 2.

    >>> from d2v.core.masks import Draw
    >>> masker = BlockMasker(num_masked=120, min_per_block=16)
    >>> mask = masker(2, (14, 14), draw=Draw(seed=0, update=1, ids=torch.tensor([7, 8])))
    >>> bool((mask.hidden.sum(1) <= 120).all())
    True
    """

    num_masked: int = field(validator=ge(1))
    min_per_block: int = field(validator=ge(1))
    max_per_block: int | None = None
    min_aspect: float = field(default=0.3, validator=factor)

    def __attrs_post_init__(self) -> None:
        if self.max_per_block is not None and self.max_per_block < self.min_per_block:
            raise ValueError(f"max_per_block={self.max_per_block} is below min_per_block={self.min_per_block}")

    def __call__(
        self, b: int, grid: tuple[int, ...], *, num_masks: int = 1, draw: Source, lengths: Tensor | None = None
    ) -> Mask:
        """Draw a mask, `hidden` Bool `(b m) t`, over a grid `(h, w)`; see `Masker`."""
        valid = valid_positions(b, grid, num_masks, lengths, axes=2)
        height, width = grid
        t, device = height * width, device_of(draw)
        if min(grid) < 2:
            raise ValueError(f"grid={tuple(grid)} is too small for rectangles: both sides must be at least 2")
        if self.min_per_block >= t:
            raise ValueError(f"min_per_block={self.min_per_block} must be below the {t} positions of the grid")
        check_visible(torch.full_like(valid, self.num_masked), valid, num_masks, "lower num_masked")

        allowed = inside(valid, t, device)
        hidden = torch.zeros_like(allowed)
        failed = torch.zeros(len(hidden), dtype=torch.long, device=device)
        rows, attempt = torch.arange(len(hidden), device=device), 0
        while len(rows):  # one attempt for every unfinished row
            numbers = uniform(bits(draw, b, num_masks, 4, stream=attempt)[rows])
            wanted = self.num_masked - hidden[rows].sum(1)
            cap = wanted.clamp(max=self.max_per_block or self.num_masked)
            rectangle = self._propose(numbers, cap, height, width)
            hidden[rows], accepted = place_rectangles(hidden[rows], allowed[rows], rectangle, cap, width)
            failed[rows] = (failed[rows] + 1).where(~accepted, 0)
            rows = rows[(failed[rows] < _ATTEMPTS) & (hidden[rows].sum(1) < self.num_masked)]
            attempt += 1
        return Mask(hidden=hidden, num_masks=num_masks)

    def _propose(self, numbers: Tensor, cap: Tensor, height: int, width: int) -> Tensor:
        """Return top, left, height and width of one rectangle per row, Long `r 4`; 0 x 0 if the shape does not fit."""
        area = self.min_per_block + (cap - self.min_per_block) * numbers[:, 0]
        slope = math.log(self.min_aspect)
        root = ((1 - 2 * numbers[:, 1]) * (slope / 2)).exp()  # of the aspect
        down, across = (area.sqrt() * root).round().long(), (area.sqrt() / root).round().long()  # half to even
        size = torch.stack([down, across], 1) * ((down < height) & (across < width))[:, None]
        free = torch.tensor([height + 1, width + 1], device=size.device) - size
        return torch.cat([(numbers[:, 2:] * free).long(), size], 1)


def place_rectangles(
    hidden: Tensor, allowed: Tensor, rectangle: Tensor, cap: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """Make one attempt per row: hide the rectangle if that hides 1 to `cap` further positions.

    Args:
        hidden: Bool `r t`, hidden so far.
        allowed: Bool `r t`, positions that may be hidden.
        rectangle: Long `r 4`: top, left, height, width.
        cap: Long `r`, maximum number of new positions.
        width: width of the grid.

    Returns:
        (hidden, accepted): hidden positions afterwards, Bool `r t`, and whether the attempt was accepted, Bool `r`.
    """
    position = torch.arange(hidden.shape[1], device=hidden.device)
    top, left, down, across = rectangle[:, :, None].unbind(1)
    row, column = position // width, position % width
    new = (row >= top) & (row < top + down) & (column >= left) & (column < left + across) & allowed & ~hidden
    gained = new.sum(1)
    accepted = (gained >= 1) & (gained <= cap)
    return hidden | new & accepted[:, None], accepted
