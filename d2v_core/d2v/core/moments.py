"""Sums over batches and workers to compute variances, explained fraction and position fraction.

The sums stay on the device until they are reported. Pooling over batches and workers is exact: the result is that of
one large batch.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor
from torch import distributed as dist

from d2v.core.masks import Mask


class Moments:
    """Moments of predictions and targets at hidden positions; see `CollapseMonitor` for the metrics.

    >>> mask = Mask(hidden=torch.ones(2, 3, dtype=torch.bool))
    >>> moments = Moments()
    >>> moments.add(torch.zeros(6, 4), torch.randn(6, 4), mask)
    >>> sorted(moments.report())
    ['explained', 'position_fraction', 'pred_var', 'target_var']
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, predictions: Tensor, targets: Tensor, mask: Mask) -> None:
        """Add a batch.

        Args:
            predictions: float32 `n d`, n >= 1.
            targets: float32 `n d`, in the order of `mask.index`.
            mask: mask of the batch.
        """
        dtype = _wide(targets)
        error = (predictions - targets).square().sum(dtype=dtype)
        batch = {"n": error.new_tensor(targets.shape[0]), "error": error}
        batch |= _moments(predictions, "pred") | _moments(targets, "target") | _by_position(targets, mask)
        for name, value in batch.items():
            self._sums[name] = _add(self._sums[name], value) if name in self._sums else value

    def report(self) -> dict[str, float]:
        """Return metrics over all workers, which must all call it; metrics undefined with too few rows are missing."""
        sums = _over_workers(self._sums)
        n, d = sums["n"], sums["target_sum"].shape[0]
        values = {
            f"{name}_var": _deviation(sums[f"{name}_sum"], sums[f"{name}_squares"], n) for name in ("target", "pred")
        }
        variance = (sums["target_squares"] / n - (sums["target_sum"] / n).square()).clamp(min=0).mean()
        values["explained"] = 1 - sums["error"] / (n * d) / variance
        values["position_fraction"] = _position_fraction(sums["pairs"], sums["position_sum"], sums["pair_squares"])
        numbers = torch.stack(list(values.values())).tolist()
        # 0 / 0 and x / 0 mark undefined values without a second synchronisation with the device.
        return {name: number for name, number in zip(values, numbers, strict=True) if abs(number) < float("inf")}


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def _moments(x: Tensor, name: str) -> dict[str, Tensor]:
    # From the mean and variance of the batch: float32 sums of squares lose a variance far smaller than the mean.
    variance, mean = torch.var_mean(x, 0, correction=0)
    mean, n = mean.to(_wide(x)), x.shape[0]
    return {f"{name}_sum": n * mean, f"{name}_squares": n * (variance + mean.square())}


def _by_position(targets: Tensor, mask: Mask) -> dict[str, Tensor]:
    """Return number of samples and sum of targets by position, over distinct (sample, position) pairs."""
    rows, length = mask.hidden.shape
    index = mask.index.to(targets.device)
    sample = index // length // mask.num_masks
    pair = sample * length + index % length
    samples, d = rows // mask.num_masks, targets.shape[1]
    # Clones of a sample write the same value to the same cell: distinct pairs without sorting or synchronisation.
    mean = targets.mean(0)
    table = targets.new_zeros(samples * length, d)
    table[pair] = targets - mean
    hidden = targets.new_zeros(samples * length, dtype=_wide(targets))
    hidden[pair] = 1
    pairs = reduce(hidden, "(b t) -> t", "sum", t=length)
    centred = rearrange(table, "(b t) d -> b t d", t=length).sum(0, dtype=_wide(targets))
    mean = mean.to(_wide(targets))
    squares = table.square().sum(dtype=_wide(targets)) + 2 * mean @ centred.sum(0) + pairs.sum() * mean @ mean
    return {"pairs": pairs, "position_sum": centred + pairs[:, None] * mean, "pair_squares": squares}


def _deviation(total: Tensor, squares: Tensor, n: Tensor) -> Tensor:
    variance = (squares / (n - 1) - total.square() / (n * (n - 1))).clamp(min=0)
    return (variance + 1e-6).sqrt().mean()


def _position_fraction(pairs: Tensor, sums: Tensor, squares: Tensor) -> Tensor:
    """Return the adjusted R^2 of a one-way analysis of variance with positions as groups, summed over channels."""
    n, groups = pairs.sum(), (pairs > 0).sum()
    total = squares - sums.sum(0).square().sum() / n
    within = squares - (sums.square().sum(1) / pairs.clamp(min=1)).sum()
    return 1 - within.clamp(min=0) / (n - groups) * (n - 1) / total


def _add(a: Tensor, b: Tensor) -> Tensor:
    """Add two tensors; sums by position may differ in length."""
    if a.dim() and a.shape[0] != b.shape[0]:
        length = max(a.shape[0], b.shape[0])
        a, b = _lengthened(a, length), _lengthened(b, length)
    return a + b


def _lengthened(x: Tensor, length: int) -> Tensor:
    return F.pad(x, [0, 0] * (x.dim() - 1) + [0, length - x.shape[0]])


def _over_workers(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    if not (dist.is_available() and dist.is_initialized()):
        return sums
    length = torch.tensor(sums["pairs"].shape[0], device=sums["pairs"].device)
    dist.all_reduce(length, dist.ReduceOp.MAX)
    by_position = {name: _lengthened(sums[name], int(length)) for name in ("pairs", "position_sum")}
    sums = sums | by_position
    flat = torch.cat([value.flatten() for value in sums.values()])
    dist.all_reduce(flat)
    parts = torch.split(flat, [value.numel() for value in sums.values()])
    return {name: part.view_as(sums[name]) for name, part in zip(sums, parts, strict=True)}
