"""Span masks over sequences: speech in data2vec 2.0 and 1.0, text in 1.0, channels in fine-tuning."""

import math
from typing import Literal

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.masks.draw import Source, below, bits, device_of, uniform
from d2v.core.masks.mask import Mask
from d2v.core.masks.masker import adjusted, among, check_visible, inside, lowest, valid_positions
from d2v.core.validators import fraction, one_of

_COUNT, _STARTS, _LENGTHS, _EQUAL, _DROPOUT = range(5)  # streams
Selection = Literal["static", "normal", "poisson", "uniform"]


@frozen(kw_only=True)
class SpanMasker:
    """Hides the union of n random spans per row (speech; text 1.0 with `reach_end`).

    With v valid positions: n = max(min_masks, floor(mask_prob v / mask_length + u)), u uniform in [0, 1). The n starts
    are distinct, from {0, ..., v - s - 1} where s is the row's shortest span, or from {0, ..., n} if v - s <= n. Spans
    of one length therefore never cover the last valid position, as in the reference. Spans may overlap and are cut at
    v. Because of overlaps, fewer than mask_prob v positions are hidden.

    Args:
        mask_prob: number of spans times their length, as a fraction of the valid positions, in [0, 1].
        mask_length: length of a span in positions, at least 1; the mean if lengths vary.
        min_masks: minimum number of spans per row. 0 for channels and for 1.0 text: a row without spans is not masked.
        equal_counts: whether random positions of every row are unmasked until all rows have the smallest count of the
            call. Rows without spans stay unchanged and do not count.
        add_masks: bring rows to the largest count instead, by hiding further single valid positions.
        mask_dropout: fraction of a row's hidden positions (rounded) to unmask at the end, in [0, 1].
        selection: distribution of the lengths: "static"; "normal" with standard deviation `mask_other`, rounded, at
            least 1; "poisson"; "uniform" over the integers from `mask_other` to 2 mask_length.
        mask_other: parameter of `selection`.
        no_overlap: draw spans without overlap, every arrangement equally likely. Spans that do not fit are left out,
            and none is longer than v - 1. The range of starts above does not apply; excludes `reach_end`.
        min_space: minimum number of visible positions between two spans, with `no_overlap`.
        reach_end: 1.0 text: starts are anywhere in {0, ..., v - 1}, and a short row may be hidden completely.

    Raises:
        ValueError: on a value or combination out of range; in the call, if a row would keep no visible position, or is
            too short for the largest count (`add_masks`).

    >>> masker = SpanMasker(mask_prob=0.65, mask_length=10)
    >>> mask = masker(2, (100,), draw=torch.Generator().manual_seed(0), lengths=torch.tensor([100, 70]))
    >>> bool(mask.hidden[1, 69:].any()), mask.visible.shape[0]
    (False, 2)
    """

    mask_prob: float = field(validator=fraction)
    mask_length: int = field(validator=ge(1))
    min_masks: int = field(default=1, validator=ge(0))
    equal_counts: bool = True
    add_masks: bool = False
    mask_dropout: float = field(default=0.0, validator=fraction)
    selection: Selection = field(default="static", validator=one_of(Selection))
    mask_other: float = field(default=0.0, validator=ge(0))
    no_overlap: bool = False
    min_space: int = field(default=1, validator=ge(0))
    reach_end: bool = False

    def __attrs_post_init__(self) -> None:
        if self.add_masks and not self.equal_counts:
            raise ValueError("add_masks brings rows to equal counts: leave equal_counts at True, or add_masks at False")
        if self.no_overlap and self.reach_end:
            raise ValueError("no_overlap and reach_end exclude each other: choose one")
        if self.selection == "uniform" and self.mask_other > 2 * self.mask_length:
            raise ValueError(f"mask_other={self.mask_other} must not exceed 2 mask_length={2 * self.mask_length}")

    def __call__(
        self, b: int, grid: tuple[int, ...] | int, *, num_masks: int = 1, draw: Source, lengths: Tensor | None = None
    ) -> Mask:
        """Draw a mask, `hidden` Bool `(b m) t`, over a grid `(t,)` or t; see `Masker`."""
        grid = (grid,) if isinstance(grid, int) else grid
        valid = valid_positions(b, grid, num_masks, lengths, axes=1)
        (t,) = grid
        allowed = inside(valid, t, device_of(draw))
        hidden = self._spans(b, t, num_masks, draw, valid) & allowed
        count = hidden.sum(1)
        if not self.reach_end:
            fix = "leave out samples that short, or lower mask_prob or mask_length"
            check_visible(count, valid, num_masks, fix)

        if self.equal_counts:
            drawn = count[count > 0]
            if len(drawn):
                target = (drawn.max() if self.add_masks else drawn.min()) * (count > 0)
                fix = "add_masks hides as many positions as in the longest sample: leave out samples that short"
                check_visible(target, valid, num_masks, fix)
                hidden = adjusted(hidden, allowed, bits(draw, b, num_masks, t, stream=_EQUAL), target)
        if self.mask_dropout:
            count = hidden.sum(1)
            count = count - (count * self.mask_dropout).round().long()
            hidden = lowest(among(bits(draw, b, num_masks, t, stream=_DROPOUT), hidden), count)
        return Mask(hidden=hidden, num_masks=num_masks)

    def _spans(self, b: int, t: int, num_masks: int, draw: Source, valid: Tensor) -> Tensor:
        """Union of the spans, Bool `(b m) t`, not yet cut at the valid positions."""
        device = device_of(draw)
        expected = self.mask_prob * valid.double() / self.mask_length
        whole = expected.floor()
        # floor(x + u) is floor(x) and, with probability x - floor(x), one more.
        more = uniform(bits(draw, b, num_masks, 1, stream=_COUNT)) < (expected - whole).float().to(device)[:, None]
        count = (whole.long().to(device)[:, None] + more).clamp(min=self.min_masks)  # r 1
        most = max(int(whole.max()) + 1, self.min_masks)
        valid = valid.to(device)[:, None]
        lengths = self._lengths(b, num_masks, most, draw)
        used = torch.arange(most, device=device) < count
        if self.no_overlap:
            keys = bits(draw, b, num_masks, t + most, stream=_STARTS)
            starts, lengths = _arrange(lengths.where(used, 0).clamp(max=valid - 1), used, valid, self.min_space, keys)
            return cover_spans(starts, lengths, t)
        if self.reach_end:
            high = valid
        else:
            fitting = valid - lengths.where(used, t).amin(1, keepdim=True)
            high = fitting.where(fitting > count, count + 1)
        keys = bits(draw, b, num_masks, max(t, most + 1), stream=_STARTS)
        keys = among(keys, torch.arange(keys.shape[1], device=device) < high)
        starts = keys.topk(most, dim=1, largest=False).indices  # distinct, in random order
        return cover_spans(starts, lengths.where(used & (starts < high), 0), t)

    def _lengths(self, b: int, num_masks: int, n: int, draw: Source) -> Tensor:
        if self.selection == "static":
            return torch.full((b * num_masks, n), self.mask_length, device=device_of(draw))
        numbers = bits(draw, b, num_masks, n, stream=_LENGTHS)
        if self.selection == "uniform":
            low = math.ceil(self.mask_other)
            return low + below(numbers, 2 * self.mask_length - low + 1)
        u = uniform(numbers) + 2.0**-25  # the middle of its interval: never 0 or 1
        if self.selection == "normal":
            normal: Tensor = torch.special.ndtri(u)
            return (self.mask_length + self.mask_other * normal).round().long().clamp(min=1)
        steps = torch.arange(self.mask_length + 12 * math.isqrt(self.mask_length) + 24, dtype=torch.float64)
        log = steps * math.log(self.mask_length) - self.mask_length - torch.lgamma(steps + 1)
        below_or_at = log.exp().cumsum(0).float().to(u.device)  # P(length <= step)
        return torch.searchsorted(below_or_at, u).clamp(max=len(steps) - 1)


def cover_spans(starts: Tensor, lengths: Tensor, positions: int) -> Tensor:
    """Return the union of spans, Bool `r positions`.

    Args:
        starts: Long `r s`; a start beyond the last position covers nothing.
        lengths: Long `r s`; 0 covers nothing, so rows may have different numbers of spans. Spans are cut at the end.
        positions: t.

    >>> cover_spans(torch.tensor([[1, 4]]), torch.tensor([[2, 3]]), 6).int()
    tensor([[0, 1, 1, 0, 1, 1]], dtype=torch.int32)
    """
    # +1 at the start of a span and -1 after its end: the running sum is above zero inside of spans.
    step = torch.zeros(starts.shape[0], positions + 1, dtype=torch.int32, device=starts.device)
    one = torch.ones_like(starts, dtype=torch.int32)
    step.scatter_add_(1, starts.clamp(max=positions), one)
    step.scatter_add_(1, (starts + lengths).clamp(max=positions), -one)
    return step.cumsum(1)[:, :positions] > 0


def _arrange(lengths: Tensor, used: Tensor, valid: Tensor, space: int, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return starts and lengths of spans without overlap, `r s` each; arrangements are equally likely (stars and bars).

    The n spans and the f positions that are in neither spans nor the spaces between them form a row of n + f items. An
    arrangement is a choice of the n items that are spans.
    """
    ends = (lengths + space).cumsum(1) - space
    fits = used & (ends <= valid)  # a prefix of the row, since ends never decrease
    count = fits.sum(1, keepdim=True)
    items = valid - ends.where(fits, 0).amax(1, keepdim=True) + count
    keys = among(keys, torch.arange(keys.shape[1], device=keys.device) < items)
    chosen = keys.topk(lengths.shape[1], dim=1, largest=False).indices
    chosen = chosen.where(fits, keys.shape[1]).sort(1).values  # the unused ones last
    order = torch.arange(lengths.shape[1], device=keys.device)
    lengths = lengths.where(fits, 0)
    before = (lengths + space).cumsum(1) - (lengths + space)
    return chosen - order + before, lengths
