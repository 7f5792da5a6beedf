"""Joint masking of positions and channels: fine-tuning of speech."""

from attrs import evolve, field, frozen
from attrs.validators import ge
from torch import Tensor

from d2v.core.masks.draw import Draw, Source
from d2v.core.masks.mask import Mask
from d2v.core.masks.masker import Masker

_CHANNELS = 1  # purpose of the second draw, so that two maskers of one class draw independent masks


@frozen(kw_only=True)
class ChannelMasker:
    """Hides positions with one masker, and channels with another; a channel is hidden at all positions of a row.

    Args:
        positions: masker for the positions.
        channels: masker over a grid `(embed_dim,)`; published: spans with `min_masks` 0, without padding.
        embed_dim: number of channels of the local features, at least 1.

    Raises:
        ValueError: if `embed_dim` is below 1; in the call, as the two maskers.

    >>> import torch
    >>> from d2v.core.masks import SpanMasker
    >>> masker = ChannelMasker(
    ...     positions=SpanMasker(mask_prob=0.5, mask_length=10),
    ...     channels=SpanMasker(mask_prob=0.25, mask_length=64, min_masks=0),
    ...     embed_dim=768,
    ... )
    >>> mask = masker(2, (100,), draw=torch.Generator().manual_seed(0))
    >>> mask.hidden.shape, mask.channels.shape
    (torch.Size([2, 100]), torch.Size([2, 768]))
    """

    positions: Masker
    channels: Masker
    embed_dim: int = field(validator=ge(1))

    def __call__(
        self, b: int, grid: tuple[int, ...], *, num_masks: int = 1, draw: Source, lengths: Tensor | None = None
    ) -> Mask:
        """Draw a mask with `hidden` Bool `(b m) t` and `channels` Bool `(b m) embed_dim`; see `Masker`."""
        mask = self.positions(b, grid, num_masks=num_masks, draw=draw, lengths=lengths)
        second = evolve(draw, purpose=draw.purpose + _CHANNELS) if isinstance(draw, Draw) else draw
        channels = self.channels(b, (self.embed_dim,), num_masks=num_masks, draw=second)
        return evolve(mask, channels=channels.hidden)
