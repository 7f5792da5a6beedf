"""Rows without their padding, one after the other: in inference on a CPU, padding costs time and nobody reads it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from d2v.core.nn.distances import DistanceBias
from d2v.core.nn.inference import packed_weights


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedRows:
    """Lengths of the rows of packed tokens, which is all that attention needs of their padding.

    Args:
        lengths: number of tokens of each row.
        longest: k, number of tokens of a row with its padding.
        bias: additive attention bias `r h k k` of the rows with their padding, r, h and k may be 1, or one by distance,
            or None.

    >>> rows = PackedRows.of(torch.zeros(2, 3, 1), torch.tensor([[False, False, False], [False, True, True]]))
    >>> rows is None  # outside of `inferring`
    True
    >>> rows = PackedRows(lengths=(3, 1), longest=3)
    >>> packed = rows.pack(torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]))
    >>> packed.flatten(), rows.unpack(packed).flatten()
    (tensor([1., 2., 3., 4.]), tensor([1., 2., 3., 4., 0., 0.]))
    """

    lengths: tuple[int, ...]
    longest: int
    bias: Tensor | DistanceBias | None = None
    _known: dict[torch.dtype, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, x: Tensor, padding: Tensor | None) -> "PackedRows | None":
        """Return the lengths of rows `r k d`; None where padding is computed: not in `inferring`, or not on a CPU."""
        if packed_weights() is None or padding is None or x.device.type != "cpu" or padding.shape != x.shape[:2]:
            return None
        if padding.numel() == 0 or not bool((padding[:, 1:] >= padding[:, :-1]).all()):
            return None  # not at the end
        return cls(lengths=tuple((~padding).sum(1).tolist()), longest=x.shape[1])

    def pack(self, x: Tensor) -> Tensor:
        """Return `1 n d` of `r k d`."""
        return torch.cat([row[:length] for row, length in zip(x, self.lengths, strict=True)])[None]

    def unpack(self, x: Tensor) -> Tensor:
        """Return `r k d` of `1 n d`, zero in the padding."""
        rows = x.new_zeros(len(self.lengths), self.longest, x.shape[-1])
        for row, own in zip(rows, self.split(x), strict=True):
            row[: own.shape[1]] = own[0]
        return rows

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the rows `1 k d` of `1 n d`, each of its own length."""
        return torch.split(x, list(self.lengths), 1)

    def bias_of(self, row: int, dtype: torch.dtype) -> Tensor | None:
        """Return the bias of a row without its padding, `1 h k k`."""
        if self.bias is None:
            return None
        if dtype not in self._known:
            bias = self.bias
            self._known[dtype] = bias.table(dtype) if isinstance(bias, DistanceBias) else bias.to(dtype)
        whole, length = self._known[dtype], self.lengths[row]
        own = whole if whole.shape[0] == 1 else whole[row : row + 1]
        return own[..., :length, :length]
