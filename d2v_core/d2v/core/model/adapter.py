"""What is particular to a modality, as parts that a teacher rule can name.

A modality is mostly its front end; positions, bias, extra tokens, mask token and context are standard parts or absent.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from attrs.validators import ge
from einops import repeat
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.model.batch import Batch, Local
from d2v.core.nn import Dropout, TransformerEncoder
from d2v.core.validators import check


class ExtraTokens(nn.Module):
    """Learned tokens in front of the sequence, such as a class token.

    Args:
        num: e, how many, at least 1.
        embed_dim: d.
        std: standard deviation of the initial values.
        first_zero: whether the first token starts at zero.
        positions: whether the tokens have learned positions of their own.

    Raises:
        ValueError: if `num` is below 1.

    >>> ExtraTokens(1, 8)().shape
    torch.Size([1, 1, 8])
    """

    def __init__(
        self, num: int, embed_dim: int, *, std: float = 1.0, first_zero: bool = False, positions: bool = False
    ) -> None:
        super().__init__()
        check(ge(1), num=num)
        self.tokens = nn.Parameter(torch.randn(1, num, embed_dim) * std)
        if first_zero:
            self.tokens.data[:, 0] = 0
        self.positions = nn.Parameter(torch.zeros(1, num, embed_dim)) if positions else None

    @classmethod
    def of(cls, num: int, embed_dim: int, **options: Any) -> "ExtraTokens | None":
        """So many tokens with these options; None where there are none.

        >>> ExtraTokens.of(0, 8) is None
        True
        """
        return cls(num, embed_dim, **options) if num else None

    def forward(self) -> Tensor:
        """Tokens `1 e d`."""
        return self.tokens if self.positions is None else self.tokens + self.positions


class MaskToken(nn.Module):
    """The learned vector that stands at hidden positions where the sequence is kept (data2vec 1.0).

    Args:
        embed_dim: d.

    >>> MaskToken(8)().shape
    torch.Size([1, 1, 8])
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, embed_dim))

    def forward(self) -> Tensor:
        """Token `1 1 d`."""
        return self.token


class ModalityAdapter(nn.Module):
    """From a batch to tokens; every child is a module or None.

    `modality` is the name under which a `Backbone` of this adapter alone has it; each modality's own class sets it.

    Args:
        front: batch to `Local`, raw input to features.
        positions: (x `r t d`, mask or None) to what is added to x, `1 t d`, `b t d` or `(b m) t d`. With a mask the
            hidden positions are dropped afterwards, and positions that look at x must not see them.
        bias: tokens to (layer to attention bias).
        extra_tokens: () to `1 e d`.
        mask_token: () to `1 1 d`, put at hidden positions where the sequence is kept.
        context: norm in front, dropout and prenet blocks, before the shared encoder.
        dropout: on the local features of training, before masking (the teacher never sees it).
        noise_std: without a mask token, the noise put at hidden positions where the sequence is kept; 0 = zeros.
        channels_first: whether hidden channels are zeroed before the mask token is put in, which then stays whole.
        zero_padding: whether padded positions are set to zero before positions are added (1.0 speech and text).

    >>> from d2v.core.model import Local
    >>> class Front(nn.Module):
    ...     def forward(self, batch):
    ...         return Local(x=batch.source, padding=None, grid=batch.source.shape[1:2])
    >>> adapter = ModalityAdapter(Front(), mask_token=MaskToken(8))
    >>> adapter.front(Batch(source=torch.zeros(2, 5, 8))).grid
    torch.Size([5])
    """

    modality = "input"

    front: Callable[[Batch], Local]
    positions: Callable[[Tensor, Mask | None], Tensor] | None
    bias: nn.Module | None
    extra_tokens: Callable[[], Tensor] | None
    mask_token: Callable[[], Tensor] | None
    context: TransformerEncoder | None

    def __init__(
        self,
        front: nn.Module,
        *,
        positions: nn.Module | None = None,
        bias: nn.Module | None = None,
        extra_tokens: nn.Module | None = None,
        mask_token: nn.Module | None = None,
        context: TransformerEncoder | None = None,
        dropout: float = 0.0,
        noise_std: float = 0.0,
        channels_first: bool = False,
        zero_padding: bool = False,
    ) -> None:
        super().__init__()
        self.front = front
        self.positions = positions
        self.bias = bias
        self.extra_tokens = extra_tokens
        self.mask_token = mask_token
        self.context = context
        self.dropout = Dropout(dropout)
        self.noise_std = noise_std
        self.channels_first = channels_first
        self.zero_padding = zero_padding

    def corrupt(self, batch: Batch, local: Local, mask: Mask) -> Tensor:
        """Mask and keep the sequence.

        Args:
            batch: for adapters that mask the raw input.
            local: features of the batch.
            mask: `(b m) t`.

        Returns:
            `(b m) t d` with hidden positions replaced and hidden channels zeroed.
        """
        del batch
        x = repeat_rows(local.x, mask.hidden.shape[0])
        channels = None if mask.channels is None else mask.channels[:, None]
        if channels is not None and self.channels_first:
            x = x.masked_fill(channels, 0)
        hidden = mask.hidden[..., None]
        if self.mask_token is not None:
            x = torch.where(hidden, self.mask_token().to(x.dtype), x)
        elif self.noise_std > 0:
            x = torch.where(hidden, torch.randn_like(x) * self.noise_std, x)
        else:
            x = x.masked_fill(hidden, 0)
        if channels is not None and not self.channels_first:
            x = x.masked_fill(channels, 0)
        return x

    def pixels(self, batch: Batch) -> Tensor:
        """Normalised raw content of each position, `b t p`, for the reconstruction loss.

        Raises:
            NotImplementedError: if the modality has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no raw content to reconstruct; set pixel_weight=0")


Context = TransformerEncoder | Literal["norm"] | None


def as_context(context: Context, embed_dim: int) -> TransformerEncoder | None:
    """What runs before the shared encoder: "norm" = a layer norm alone, the form of most 2.0 models.

    >>> as_context("norm", 8).norm_in.normalized_shape
    (8,)
    """
    return TransformerEncoder(norm_in=nn.LayerNorm(embed_dim, eps=1e-6)) if context == "norm" else context


def repeat_rows(x: Tensor, rows: int) -> Tensor:
    """Repeat each of b rows for its views: `b ...` to `(b m) ...`.

    Raises:
        ValueError: if `rows` is not a multiple of b.
    """
    if rows % x.shape[0]:
        raise ValueError(f"a mask of {rows} rows does not fit {x.shape[0]} samples")
    return x if rows == x.shape[0] else repeat(x, "b ... -> (b m) ...", m=rows // x.shape[0])
