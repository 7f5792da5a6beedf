"""Relative positions of speech frames by convolutions over the sequence."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.model.adapter import repeat_rows
from d2v.core.nn.forms import Trial, TwoForms, trial_of
from d2v.core.nn.gradients import keep_layout
from d2v.core.nn.kernels import convolve, fits_channels_last
from d2v.core.nn.recompute import recomputed

_TRIAL_ROWS, _TRIAL_FRAMES = 8, 64


class ConvPositions(TwoForms):
    """Grouped convolutions, each followed by a norm without weights and GELU; the result is added to the frames.

    Even if hidden frames are dropped later, this layer needs the whole sequence of each view. Hidden frames and
    channels are set to zero first.

    Args:
        embed_dim: d.
        width: width of all convolutions together; each kernel is max(3, width // depth).
        depth: number of convolutions.
        groups: groups of each convolution, divides d.

    Raises:
        ValueError: if `groups` does not divide d.

    >>> import torch
    >>> ConvPositions(16, width=15, depth=5, groups=4)(torch.zeros(2, 9, 16), None).shape
    torch.Size([2, 9, 16])
    """

    other_form: ClassVar[str] = "channels-last-positions"

    def __init__(self, embed_dim: int, *, width: int = 95, depth: int = 5, groups: int = 16) -> None:
        super().__init__()
        if embed_dim % groups:
            raise ValueError(f"groups={groups} of the convolutional positions must divide embed_dim={embed_dim}")
        kernel = max(3, width // depth)
        self.convs = nn.ModuleList(
            nn.Conv1d(embed_dim, embed_dim, kernel, padding=kernel // 2, groups=groups) for _ in range(depth)
        )

    @property
    def reach(self) -> int:
        """Number of frames on each side that the position of a frame depends on."""
        return sum(conv.kernel_size[0] // 2 for conv in self.convs if isinstance(conv, nn.Conv1d))

    def forward(self, x: Tensor, mask: Mask | None) -> Tensor:
        """Positions `b t d`, or `(b m) t d` with a mask, of frames `b t d`."""
        if mask is not None:
            x = repeat_rows(x, mask.hidden.shape[0]).masked_fill(mask.hidden[..., None], 0)
            if mask.channels is not None:
                x = x.masked_fill(mask.channels[:, None], 0)
        for conv in self.convs:
            x = self._layer(conv, x)
        return x

    def offers_other_form(self) -> bool:
        """Whether it has layers, on a CPU."""
        return len(self.convs) > 0 and fits_channels_last(next(self.parameters()))

    def trial(self) -> Trial:
        """Return a few rows of 64 frames, and one of the layers."""
        conv = self.convs[0]
        assert isinstance(conv, nn.Conv1d)
        return trial_of(conv, _TRIAL_FRAMES, rows=_TRIAL_ROWS), lambda x: self._layer(conv, x)

    def _layer(self, conv: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(conv, nn.Conv1d)
        if self.switched and fits_channels_last(x):
            y = convolve(conv, x, channels_last=True)[:, : x.shape[1]]
            return recomputed(F.gelu, recomputed(F.layer_norm, y, y.shape[-1:]))
        y = conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        # Not on contiguous frames: torch has another kernel for those, which rounds differently from the published
        # models.
        normed = recomputed(F.layer_norm, y, y.shape[-1:])
        return keep_layout(recomputed(F.gelu, normed.transpose(1, 2))).transpose(1, 2)
