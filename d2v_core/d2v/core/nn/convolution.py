"""Lightweight decoder of data2vec 2.0: a few grouped convolutions over the whole grid.

Its input has the visible outputs at their positions and noise elsewhere. It is discarded after pretraining.
"""

import math
from itertools import pairwise
from typing import ClassVar, Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from d2v.core.nn.forms import Trial, TwoForms, trial_of
from d2v.core.nn.kernels import convolve, fits_channels_last
from d2v.core.nn.linear import Linear
from d2v.core.nn.recompute import GELU, recomputed
from d2v.core.validators import check, one_of

_TRIAL_ROWS, _TRIAL_POSITIONS = 8, 32


class ConvDecoder(TwoForms):
    """Grouped convolutions with norm, GELU and residuals, then a projection (data2vec 2.0, section 3).

    Layer: conv (kernel k, padding k // 2; an even kernel drops the last position), layer norm over channels without
    weights, GELU; plus the layer's input if the number of channels is the same and `residual` is set.

    Args:
        embed_dim: d, width of the input and of the prediction.
        decoder_dim: number of channels of every convolution.
        num_layers: number of convolutions.
        kernel_size: k, along each axis of the grid.
        groups: number of groups of each convolution, divides `embed_dim` and `decoder_dim`.
        dims: 1 for sequences, 2 for images and spectrograms.
        residual: whether layers of equal width are residual.
        projection_layers: number of linear layers of the projection, with GELU between them.
        projection_ratio: hidden width of the projection as a multiple of `decoder_dim`.

    Raises:
        ValueError: if `groups` does not divide a width, or `dims` is neither 1 nor 2.

    >>> import torch
    >>> decoder = ConvDecoder(8, decoder_dim=4, num_layers=2, kernel_size=3, groups=2, dims=2)
    >>> decoder(torch.zeros(5, 6, 8), (2, 3)).shape
    torch.Size([5, 6, 8])
    >>> decoder(torch.zeros(5, 6, 8), (2, 3), torch.tensor([0, 7, 29])).shape
    torch.Size([3, 8])
    """

    other_form: ClassVar[str] = "channels-last-decoder"

    def __init__(
        self,
        embed_dim: int,
        *,
        decoder_dim: int,
        num_layers: int,
        kernel_size: int,
        groups: int = 1,
        dims: int = 1,
        residual: bool = True,
        projection_layers: int = 1,
        projection_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        check(one_of(Literal[1, 2]), dims=dims)
        if embed_dim % groups or decoder_dim % groups:
            raise ValueError(f"groups={groups} must divide embed_dim={embed_dim} and decoder_dim={decoder_dim}")
        conv = nn.Conv1d if dims == 1 else nn.Conv2d
        self.embed_dim = embed_dim
        self.dims = dims
        self.residual = residual
        self.convs = nn.ModuleList(
            conv(
                embed_dim if layer == 0 else decoder_dim,
                decoder_dim,
                kernel_size,
                padding=kernel_size // 2,
                groups=groups,
            )
            for layer in range(num_layers)
        )
        widths = [
            decoder_dim if num_layers else embed_dim,
            *[int(decoder_dim * projection_ratio)] * (projection_layers - 1),
        ]
        hidden = [part for a, b in pairwise(widths) for part in (Linear(a, b), GELU())]
        self.proj = nn.Sequential(*hidden, Linear(widths[-1], embed_dim))

    def forward(self, x: Tensor, grid: tuple[int, ...], index: Tensor | None = None) -> Tensor:
        """Predict the targets.

        Args:
            x: `(b m) t d`, a vector at every position.
            grid: (t,) or (h, w) with h w = t.
            index: Long `n`, flat positions over `(b m) t` to project; None = all positions.

        Returns:
            `n d`, or `(b m) t d` without an index.

        Raises:
            ValueError: if x does not have the width d, or the grid does not hold t positions or have `dims` axes.
        """
        if x.shape[-1] != self.embed_dim:
            raise ValueError(f"x {tuple(x.shape)} must be (b m) t d with the decoder's embed_dim={self.embed_dim}")
        if len(grid) != self.dims or math.prod(grid) != x.shape[1]:
            raise ValueError(f"grid {grid} does not fit {x.shape[1]} positions and the decoder's {self.dims} axes")
        rows = x.shape[0]
        x = rearrange(x, "r (h w) d -> r h w d", h=grid[0]) if self.dims == 2 else x
        for conv in self.convs:
            y = self._layer(conv, x)  # type: ignore[arg-type]  # a ModuleList holds modules of any kind
            x = y + x if self.residual and y.shape == x.shape else y
        x = rearrange(x, "r ... d -> (r ...) d")
        if index is not None:
            x = x.index_select(0, index)
        out: Tensor = self.proj(x)
        return out if index is not None else rearrange(out, "(r t) d -> r t d", r=rows)

    def offers_other_form(self) -> bool:
        """Whether it has convolutions over one axis, on a CPU."""
        return self.dims == 1 and len(self.convs) > 0 and fits_channels_last(next(self.parameters()))

    def trial(self) -> Trial:
        """Return a few rows of 32 positions, and one of the inner layers."""
        conv = self.convs[-1]
        assert isinstance(conv, nn.Conv1d)
        return trial_of(conv, _TRIAL_POSITIONS, rows=_TRIAL_ROWS), lambda x: self._layer(conv, x)

    def _layer(self, conv: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
        y = convolve(conv, x, channels_last=self.switched)
        for axis, size in enumerate(x.shape[1:-1], start=1):
            y = y.narrow(axis, 0, size)
        return recomputed(F.gelu, recomputed(F.layer_norm, y, y.shape[-1:]))
