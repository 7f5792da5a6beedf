"""Multi-mask training: M masked views of each sample without copying it M times (data2vec 2.0, section 3)."""

import torch
from einops import rearrange
from torch import Tensor

from d2v.core.masks import Mask
from d2v.core.nn.recompute import recomputed


class MultimaskBatcher:
    """Gathers the visible or hidden positions of each view, and scatters visible tokens back.

    Sources may have 1, b or (b m) rows. A row is used for all its views without being expanded first.

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
        """Gather the visible positions of each view.

        Args:
            x: `r t ...` with r = 1, b or (b m) rows.

        Returns:
            `(b m) v ...`, in ascending order of position.

        Raises:
            ValueError: if the rows hide different numbers of positions, or x does not fit the mask.
        """
        visible = self.mask.visible
        rows = torch.arange(visible.shape[0], device=visible.device)[:, None]
        return self._take(x, rows, visible)

    def hidden(self, x: Tensor) -> Tensor:
        """Gather the hidden positions of all views, `n ...`, from `r t ...` with r = 1, b or (b m) rows."""
        length = self.mask.hidden.shape[1]
        return self._take(x, self.mask.index // length, self.mask.index % length)

    def scatter(self, visible: Tensor, *, noise_std: float = 0.0) -> Tensor:
        """Scatter visible tokens back to their positions.

        Args:
            visible: `(b m) v d`.
            noise_std: standard deviation of the Gaussian noise at hidden positions; 0 = zeros.

        Returns:
            `(b m) t d`.

        Raises:
            ValueError: if the number of tokens is not that of the visible positions.
        """
        if visible.shape[:2] != self.mask.visible.shape:
            raise ValueError(
                f"{tuple(visible.shape[:2])} rows and tokens do not fit the {tuple(self.mask.visible.shape)} visible "
                "positions; use a VisibleDecoder with visible_only=True and a MaskedHead with visible_only=False"
            )
        noise = _Noise(noise_std, visible.device)
        return recomputed(self._scattered, visible, noise) if noise.repeats else self._scattered(visible, noise)

    def _scattered(self, visible: Tensor, noise: "_Noise") -> Tensor:
        rows, length = self.mask.hidden.shape
        out = noise.draw((rows * length, visible.shape[2]), visible)
        start = torch.arange(0, rows * length, length, device=visible.device)[:, None]
        out = out.index_copy_(0, (self.mask.visible + start).flatten(), rearrange(visible, "r v d -> (r v) d"))
        return rearrange(out, "(r t) d -> r t d", r=rows)

    def _take(self, x: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        num_rows, length = self.mask.hidden.shape
        if x.shape[1] != length or num_rows % x.shape[0]:
            raise ValueError(f"{tuple(x.shape[:2])} rows and positions do not fit a mask of {(num_rows, length)}")
        index = rows // (num_rows // x.shape[0]) * length + positions
        flat = rearrange(x, "r t ... -> (r t) ...")
        return flat.index_select(0, index.flatten()).view(*index.shape, *x.shape[2:])


class _Noise:
    """Gaussian noise, which is the same each time it is drawn if it `repeats`."""

    def __init__(self, std: float, device: torch.device) -> None:
        self.std = std
        # The state of other generators cannot be read while a graph is captured.
        self.repeats = std == 0 or (device.type == "cpu" and not torch.compiler.is_compiling())
        self._state: Tensor | None = None  # of torch's generator, before it drew the noise

    def draw(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Draw from torch's generator the first time, and from a copy of it later."""
        if self.std == 0:
            return torch.zeros(shape, device=like.device, dtype=like.dtype)
        generator = None
        if self._state is not None:
            generator = torch.Generator()
            generator.set_state(self._state)
        elif self.repeats:
            self._state = torch.get_rng_state()
        return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype).mul_(self.std)
