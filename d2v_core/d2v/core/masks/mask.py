"""Hidden positions of M views of each sample.

A `Mask` is made by a masker and used by the batcher, the predictor and the loss. It does not depend on whether
positions are pixels, frames or tokens.
"""

from collections.abc import Callable

import torch
from attrs import field, frozen
from torch import Tensor


@frozen(kw_only=True, eq=False)
class Mask:
    """Hidden positions of `num_masks` views of each sample; rows are ordered (b m), sample first.

    Args:
        hidden: Bool `(b m) t`, True = the student does not see the position.
        num_masks: m, number of views of each sample (M in the data2vec 2.0 paper, section 3).
        channels: Bool `(b m) d`, True = the channel of the local features is set to zero at all positions; or None.

    Raises:
        ValueError: if `hidden` is not a two-dimensional Bool tensor, its rows are not a multiple of `num_masks`, or
            `channels` does not have the same rows.

    >>> mask = Mask(hidden=torch.tensor([[True, False, True, False]]))
    >>> mask.visible
    tensor([[1, 3]])
    >>> mask.index
    tensor([0, 2])
    """

    hidden: Tensor = field()
    num_masks: int = field(default=1)
    channels: Tensor | None = field(default=None)
    _places: dict[str, Tensor] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.hidden.dtype != torch.bool or self.hidden.dim() != 2:
            raise ValueError(
                f"hidden must be a Bool tensor of shape (b m) t, not {self.hidden.dtype} {tuple(self.hidden.shape)}"
            )
        if self.num_masks < 1 or self.hidden.shape[0] % self.num_masks:
            raise ValueError(f"{self.hidden.shape[0]} rows are not a multiple of num_masks={self.num_masks}")
        if self.channels is not None and (
            self.channels.dtype != torch.bool or self.channels.shape[:-1] != self.hidden.shape[:1]
        ):
            raise ValueError(
                f"channels must be Bool (b m) d with {self.hidden.shape[0]} rows, "
                f"not {self.channels.dtype} {tuple(self.channels.shape)}"
            )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Mask":
        """Return the mask on another device.

        `visible` and `index` are found before a mask leaves the CPU: finding them on a GPU would wait for the GPU.
        """
        if self.hidden.device == torch.device(device):
            return self
        return self._with_each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Mask":
        """Return the mask in pinned memory, from which copies to a GPU are asynchronous; on a GPU it stays there."""
        return self._with_each(Tensor.pin_memory) if self.hidden.device.type == "cpu" else self

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> "Mask":
        places = self._places
        if self.hidden.device.type == "cpu":
            counts = set(self._visible_counts().tolist())
            places = {"index": self.index}
            if len(counts) == 1 and 0 not in counts:
                places["visible"] = self.visible
        channels = None if self.channels is None else change(self.channels)
        mask = Mask(hidden=change(self.hidden), num_masks=self.num_masks, channels=channels)
        mask._places.update({name: change(tensor) for name, tensor in places.items()})
        return mask

    def _visible_counts(self) -> Tensor:
        return self.hidden.shape[1] - self.hidden.sum(1)

    @property
    def visible(self) -> Tensor:
        """Visible positions, Long `(b m) v` ascending; found once.

        Raises:
            ValueError: if the rows hide different numbers of positions, or a row hides all.
        """
        if "visible" not in self._places:
            counts = self._visible_counts()
            low, high = (int(count) for count in torch.aminmax(counts))
            if low == 0:
                raise ValueError(f"every position of row {int(counts.argmin())} is hidden; keep at least one visible")
            if low != high:
                raise ValueError(
                    f"rows have {low} to {high} visible positions, but equal counts are needed to drop hidden "
                    "positions; use a masker with equal counts, or visible_only=False"
                )
            self._places["visible"] = (~self.hidden).nonzero()[:, 1].view(len(counts), low)
        return self._places["visible"]

    @property
    def index(self) -> Tensor:
        """Hidden positions, Long `n`, flat over `(b m) t` in row-major order; found once."""
        if "index" not in self._places:
            self._places["index"] = self.hidden.flatten().nonzero().squeeze(1)
        return self._places["index"]
