"""Predictors: predictions at hidden positions from the student's output.

data2vec 2.0 and 1.0 differ only in the predictor and in `Backbone.visible_only`.
"""

from itertools import pairwise
from typing import Protocol

from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.model.batch import Encoded
from d2v.core.model.batcher import MultimaskBatcher
from d2v.core.nn import Dropout
from d2v.core.nn.linear import Linear


class Decoder(Protocol):
    """A decoder over the whole grid, such as `ConvDecoder`."""

    def __call__(self, x: Tensor, grid: tuple[int, ...], index: Tensor | None = None) -> Tensor:
        """Predict `n d` at the flat positions `index` from `(b m) t d`."""
        ...


class Predictor(Protocol):
    """Predicts the targets at the hidden positions."""

    def __call__(self, encoded: Encoded, mask: Mask) -> Tensor:
        """Return predictions `n d`, in the order of `mask.index`."""
        ...


class VisibleDecoder(nn.Module):
    """Predictor of 2.0: a decoder over visible outputs at their positions and noise elsewhere (2.0, section 3).

    Args:
        decoder: decoder over the grid, such as `ConvDecoder`.
        noise_std: standard deviation of the noise at hidden positions; 0 = zeros.
        dropout: dropout rate of the visible outputs.

    >>> import torch
    >>> from d2v.core.nn import ConvDecoder
    >>> decoder = ConvDecoder(8, decoder_dim=4, num_layers=1, kernel_size=3)
    >>> mask = Mask(hidden=torch.tensor([[True, False, True]]))
    >>> encoded = Encoded(x=torch.zeros(1, 1, 8), padding=None, num_prefix_tokens=0, grid=(3,))
    >>> VisibleDecoder(decoder)(encoded, mask).shape
    torch.Size([2, 8])
    """

    def __init__(self, decoder: nn.Module, *, noise_std: float = 0.01, dropout: float = 0.0) -> None:
        super().__init__()
        self.decoder = decoder
        self.noise_std = noise_std
        self.dropout = Dropout(dropout)

    def forward(self, encoded: Encoded, mask: Mask) -> Tensor:
        """Compute predictions `n d`."""
        x = self.dropout(encoded.x[:, encoded.num_prefix_tokens :])
        x = MultimaskBatcher(mask).scatter(x, noise_std=self.noise_std)
        predictions: Tensor = self.decoder(x, encoded.grid, mask.index)
        return predictions


class MaskedHead(nn.Module):
    """Predictor of 1.0: a few linear layers with GELU between them, on the outputs at hidden positions.

    Args:
        embed_dim: d, the width.
        num_layers: 0 = the outputs themselves, 1 = one linear layer, more = hidden layers of width `ratio` d.
        ratio: hidden width as a multiple of d.

    >>> import torch
    >>> mask = Mask(hidden=torch.tensor([[True, False, True]]))
    >>> encoded = Encoded(x=torch.zeros(1, 3, 8), padding=None, num_prefix_tokens=0, grid=(3,))
    >>> MaskedHead(8, num_layers=2)(encoded, mask).shape
    torch.Size([2, 8])
    """

    def __init__(self, embed_dim: int, *, num_layers: int = 1, ratio: float = 2.0) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        widths = [embed_dim, *[int(ratio * embed_dim)] * (num_layers - 1), embed_dim][: num_layers + 1]
        parts: list[nn.Module] = []
        for a, b in pairwise(widths):
            parts += [*([nn.GELU()] if parts else []), Linear(a, b)]
        self.layers = nn.Sequential(*parts)

    def forward(self, encoded: Encoded, mask: Mask) -> Tensor:
        """Compute predictions `n d`.

        Raises:
            ValueError: if the encoder has another width.
        """
        if encoded.x.shape[-1] != self.embed_dim:
            raise ValueError(f"the encoder's output {tuple(encoded.x.shape)} must have embed_dim={self.embed_dim}")
        predictions: Tensor = self.layers(MultimaskBatcher(mask).hidden(encoded.x[:, encoded.num_prefix_tokens :]))
        return predictions
