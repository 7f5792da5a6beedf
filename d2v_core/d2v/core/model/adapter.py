"""Modality-specific modules, with names that the teacher's patterns can select.

A modality mainly defines its front end. Positions, bias, extra tokens, mask token and context are standard modules and
optional.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from attrs.validators import ge
from einops import repeat
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.model.batch import Batch, Layout, Local
from d2v.core.nn import Dropout, TransformerEncoder
from d2v.core.validators import check


class ExtraTokens(nn.Module):
    """Learned tokens before the sequence, such as a class token.

    Args:
        num: e, number of tokens, at least 1.
        embed_dim: d, the width.
        std: standard deviation of the initial values.
        first_zero: whether the first token starts at zero.
        positions: whether the tokens have learned positions.

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
        """Return `num` tokens with these options; None for 0 tokens.

        >>> ExtraTokens.of(0, 8) is None
        True
        """
        return cls(num, embed_dim, **options) if num else None

    def forward(self) -> Tensor:
        """Return the tokens `1 e d`."""
        return self.tokens if self.positions is None else self.tokens + self.positions


class MaskToken(nn.Module):
    """Learned vector that replaces hidden positions if the sequence is kept (data2vec 1.0).

    Args:
        embed_dim: d, the width.

    >>> MaskToken(8)().shape
    torch.Size([1, 1, 8])
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, embed_dim))

    def forward(self) -> Tensor:
        """Return the token `1 1 d`."""
        return self.token


class ModalityAdapter(nn.Module):
    """Modules of a modality that turn a batch into tokens; every child is a module or None.

    `modality` is the default name of the adapter in a `Backbone`; each modality's class sets it.

    Args:
        front: front end, from a batch to `Local`: raw input to features. Its method `layout`, from a batch to `Layout`,
            may give grid and padding alone, so that masks can be drawn before a step.
        positions: from (x `r t d`, mask or None) to the offset added to x, `1 t d`, `b t d` or `(b m) t d`. With a
            mask, hidden positions are dropped afterwards, and the offset must not depend on x at hidden positions.
        bias: from tokens to a function from a layer to its attention bias.
        extra_tokens: from () to `1 e d`.
        mask_token: from () to `1 1 d`, replaces hidden positions if the sequence is kept.
        context: input norm, dropout and context blocks, before the shared encoder.
        dropout: dropout rate of the local features in training, before masking (not applied to the teacher's input).
        noise_std: standard deviation of the noise that replaces hidden positions if the sequence is kept and there is
            no mask token; 0 = zeros.
        channels_first: whether hidden channels are zeroed before the mask token is inserted, so that the token is not
            masked.
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

    def layout(self, batch: Batch) -> Layout | None:
        """Return the layout of a batch's positions: what `layout(batch)` of the front end returns; None without it."""
        layout = getattr(self.front, "layout", None)
        return layout(batch) if callable(layout) else None

    def corrupt(self, batch: Batch, local: Local, mask: Mask) -> Tensor:
        """Mask the features without dropping positions.

        Args:
            batch: used by adapters that mask the raw input.
            local: local features of the batch.
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
        """Return the normalised raw content of each position, `b t p`, for the reconstruction loss.

        Raises:
            NotImplementedError: if the modality has no raw content to reconstruct.
        """
        raise NotImplementedError(f"{type(self).__name__} has no raw content to reconstruct; set pixel_weight=0")


Context = TransformerEncoder | Literal["norm"] | None


def as_context(context: Context, embed_dim: int) -> TransformerEncoder | None:
    """Return a context encoder; "norm" = only a layer norm, as in most 2.0 models.

    >>> as_context("norm", 8).norm_in.normalized_shape
    (8,)
    """
    return TransformerEncoder(norm_in=nn.LayerNorm(embed_dim, eps=1e-6)) if context == "norm" else context


def repeat_rows(x: Tensor, rows: int) -> Tensor:
    """Repeat each of b rows for its views, from `b ...` to `(b m) ...`.

    Raises:
        ValueError: if `rows` is not a multiple of b.
    """
    if rows % x.shape[0]:
        raise ValueError(f"a mask of {rows} rows does not fit {x.shape[0]} samples")
    return x if rows == x.shape[0] else repeat(x, "b ... -> (b m) ...", m=rows // x.shape[0])
