"""M masked views of each sample, without copying a sample M times (multimask training, data2vec 2.0, section 3)."""

import torch
from einops import rearrange
from torch import Tensor

from d2v.core.masks import Mask


class MultimaskBatcher:
    """Gathers what each view sees or hides, and puts it back.

    Sources may have 1, b or (b m) rows: a row serves as many views as it has to, and is never expanded first.

    Args:
        mask: hidden positions `(b m) t`.

    >>> mask = Mask(hidden=torch.tensor([[True, False, True], [False, True, True]]), num_masks=2)
    >>> batcher = MultimaskBatcher(mask)
    >>> batcher.visible(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten()
    tensor([2., 1.])
    >>> batcher.hidden(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten()
    tensor([1., 3., 2., 3.])
    >>> batcher.scatter(torch.tensor([[[7.0]], [[8.0]]])).squeeze(-1)
    tensor([[0., 7., 0.],
            [8., 0., 0.]])
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    def visible(self, x: Tensor) -> Tensor:
        """Visible positions of each view.

        Args:
            x: `r t ...` with r = 1, b or (b m) rows.

        Returns:
            `(b m) v ...`, ascending positions.

        Raises:
            ValueError: if the rows hide different numbers of positions, or x does not fit the mask.
        """
        visible = self.mask.visible
        rows = torch.arange(visible.shape[0], device=visible.device)[:, None]
        return self._take(x, rows, visible)

    def hidden(self, x: Tensor) -> Tensor:
        """Hidden positions of all views, `n ...`, from `r t ...` with r = 1, b or (b m) rows."""
        length = self.mask.hidden.shape[1]
        return self._take(x, self.mask.index // length, self.mask.index % length)

    def scatter(self, visible: Tensor, *, noise_std: float = 0.0) -> Tensor:
        """Put visible tokens back in place.

        Args:
            visible: `(b m) v d`.
            noise_std: standard deviation of the Gaussian noise at hidden places; 0 = zeros.

        Returns:
            `(b m) t d`.

        Raises:
            ValueError: if there are not as many tokens as visible positions.
        """
        if visible.shape[:2] != self.mask.visible.shape:
            raise ValueError(
                f"{tuple(visible.shape[:2])} rows and tokens are not the {tuple(self.mask.visible.shape)} visible "
                "ones; a decoder of visible tokens goes with visible_only=True, a MaskedHead with False"
            )
        rows, length = self.mask.hidden.shape
        shape = (rows * length, visible.shape[2])
        if noise_std > 0:
            out = torch.randn(shape, device=visible.device, dtype=visible.dtype) * noise_std
        else:
            out = torch.zeros(shape, device=visible.device, dtype=visible.dtype)
        start = torch.arange(0, rows * length, length, device=visible.device)[:, None]
        out = out.index_copy(0, (self.mask.visible + start).flatten(), rearrange(visible, "r v d -> (r v) d"))
        return rearrange(out, "(r t) d -> r t d", r=rows)

    def _take(self, x: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        num_rows, length = self.mask.hidden.shape
        if x.shape[1] != length or num_rows % x.shape[0]:
            raise ValueError(f"{tuple(x.shape[:2])} rows and positions do not fit a mask of {(num_rows, length)}")
        index = rows // (num_rows // x.shape[0]) * length + positions
        flat = rearrange(x, "r t ... -> (r t) ...")
        return flat.index_select(0, index.flatten()).view(*index.shape, *x.shape[2:])
