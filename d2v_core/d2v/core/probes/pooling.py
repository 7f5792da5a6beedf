"""Pool a layer result to features: one vector for each sample, or one for each patch.

A pooling takes the tokens of one layer, or the mean of several, and is independent of the encoder and the use of the
features.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from d2v.core.validators import check, one_of

_NUM_BLOCKS = {1: 4, 2: 2}  # along each axis, by the number of axes: four blocks in both cases


class NoClassTokenError(ValueError):
    """The encoder has no class token to use as features."""


def pool_layer(
    result: Tensor, pooling: str, *, num_prefix_tokens: int, grid: tuple[int, ...], padding: Tensor | None = None
) -> Tensor:
    """Pool one layer result to features.

    - "mean": mean of the valid patches or frames, `b d`.
    - "grid": means of 2 x 2 blocks of a 2-d grid, of 4 segments of a 1-d one, `b (4 d)`, blocks in row-major order.
      Block i of n over a length is [floor(i length / n), ceil((i + 1) length / n)), as in adaptive average pooling.
      With padding, the length is that of the valid part and invalid positions do not count.
    - "class-token": the class token, which is the last of the extra tokens (the class-token loss trains it), `b d`.
    - "tokens": every patch or frame, `b t d`, padded ones 0.

    Features of a sample without a valid position are 0.

    Args:
        result: `b (e+t) d`.
        pooling: one of `POOLINGS`.
        num_prefix_tokens: e, extra tokens before the others.
        grid: (t,) or (h, w), the layout of the positions.
        padding: Bool `b (e+t)`, True = padding, or None.

    Returns:
        Features in at least float32.

    Raises:
        ValueError: if the pooling is unknown, the grid does not fit, or there is no class token.

    >>> result = torch.arange(2 * 5.0).view(1, 5, 2)
    >>> pool_layer(result, "mean", num_prefix_tokens=1, grid=(2, 2))
    tensor([[5., 6.]])
    >>> pool_layer(result, "class-token", num_prefix_tokens=1, grid=(2, 2))
    tensor([[0., 1.]])
    >>> pool_layer(result, "grid", num_prefix_tokens=1, grid=(2, 2)).shape
    torch.Size([1, 8])
    """
    check_pooling(pooling)
    positions = result.shape[1] - num_prefix_tokens
    if len(grid) not in _NUM_BLOCKS or positions != torch.Size(grid).numel():
        raise ValueError(f"grid={grid} must have 1 or 2 axes and {positions} positions")
    if result.dtype in (torch.float16, torch.bfloat16):
        result = result.float()
    if pooling == "class-token":
        if num_prefix_tokens == 0:
            raise NoClassTokenError("the encoder has no extra tokens, so there is no class token to pool")
        return result[:, num_prefix_tokens - 1]
    patches = result[:, num_prefix_tokens:]
    if padding is None:
        valid = torch.ones(patches.shape[:2], dtype=torch.bool, device=result.device)
    else:
        valid = ~padding[:, num_prefix_tokens:]
        # masked_fill, not a product with 0: padded positions may contain NaN.
        patches = patches.masked_fill(~valid[..., None], 0)
    return _POOLED[pooling](patches, valid, grid)


def check_pooling(pooling: str) -> None:
    """Refuse a pooling that does not exist.

    Raises:
        ValueError: if it is not one of `POOLINGS`.
    """
    check(one_of(POOLINGS), pooling=pooling)


def _mean(patches: Tensor, valid: Tensor, grid: tuple[int, ...]) -> Tensor:
    return patches.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)


def _block_means(patches: Tensor, valid: Tensor, grid: tuple[int, ...]) -> Tensor:
    n = _NUM_BLOCKS[len(grid)]
    if len(grid) == 1:
        members = _segments(valid, n)
    else:
        valid = rearrange(valid, "b (h w) -> b h w", h=grid[0])
        rows, columns = _segments(valid.any(2), n), _segments(valid.any(1), n)
        members = rows[:, :, None, :, None] & columns[:, None, :, None, :] & valid[:, None, None]
        members = rearrange(members, "b i j h w -> b (i j) (h w)")
    sums = members.to(patches.dtype) @ patches
    return rearrange(sums / members.sum(2, keepdim=True).clamp(min=1), "b n d -> b (n d)")


def _segments(valid: Tensor, n: int) -> Tensor:
    """Bool `b n t`: which of the valid positions `b t` belong to each of n segments."""
    length = valid.sum(1)[:, None, None]
    place = valid.cumsum(1)[:, None] - 1
    i = torch.arange(n, device=valid.device)[:, None]
    start, stop = i * length // n, -(-(i + 1) * length // n)
    return (place >= start) & (place < stop) & valid[:, None]


def _all(patches: Tensor, valid: Tensor, grid: tuple[int, ...]) -> Tensor:
    return patches


_POOLED: dict[str, Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]] = {
    "mean": _mean,
    "grid": _block_means,
    "tokens": _all,
}
POOLINGS = ("mean", "grid", "class-token", "tokens")
"""Names of the poolings, see `pool_layer`."""
