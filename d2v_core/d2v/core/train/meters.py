"""Sums and counts of metrics between two lines of the log, kept on the device until they are reported."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import distributed as dist

from d2v.core.train.ranks import world

_Sums = dict[str, tuple[Tensor | float, int]]


class Meters:
    """Means of metrics over micro-batches, updates and ranks.

    Ranks may have different metrics.

    >>> meters = Meters()
    >>> meters.add({"loss": (torch.tensor(6.0), 2)}, modality="image")
    >>> meters.add({"loss": (torch.tensor(3.0), 1)}, modality="text")
    >>> meters.report()
    {'image/loss': 3.0, 'loss': 3.0, 'text/loss': 3.0}
    """

    def __init__(self) -> None:
        self._sums: _Sums = {}

    def add(self, metrics: dict[str, tuple[Tensor, int]], *, modality: str | None = None) -> None:
        """Add the metrics of a micro-batch.

        Args:
            metrics: name to (sum, count).
            modality: modality of the batch; its metrics are also added as `modality/name`. None = unknown.
        """
        for name, (total, count) in metrics.items():
            for key in (name,) if modality is None else (name, f"{modality}/{name}"):
                before, counted = self._sums.get(key, (0.0, 0))
                self._sums[key] = before + total.detach().float(), counted + count

    def report(self) -> dict[str, float]:
        """Return means since the last report, without metrics of count 0; all ranks must call it together."""
        sums, self._sums = self._sums, {}
        if world()[1] > 1:
            sums = _over_ranks(sums)
        return {name: float(total) / count for name, (total, count) in sorted(sums.items()) if count}

    def state_dict(self) -> dict[str, list[float]]:
        """Sums since the last report; a float represents a float32 exactly."""
        return {name: [float(total), count] for name, (total, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Restore the sums of `state_dict`."""
        self._sums = {name: (total, int(count)) for name, (total, count) in state.items()}


def _over_ranks(sums: _Sums) -> _Sums:
    device = next((total.device for total, _ in sums.values() if isinstance(total, Tensor)), torch.device("cpu"))
    names = _union_over_ranks(list(sums), device)
    table = torch.zeros(len(names), 2, dtype=torch.float64, device=device)
    for row, name in zip(table, names, strict=True):
        if name in sums:
            row[0], row[1] = sums[name]
    dist.all_reduce(table)
    return {name: (total, int(count)) for name, (total, count) in zip(names, table.tolist(), strict=True)}


def _union_over_ranks(names: list[str], device: torch.device) -> list[str]:
    """Return the names that any rank has, sorted."""
    # As bytes: torch pickles other objects to gather them, on a device of its choice.
    text = torch.tensor(list("\n".join(names).encode()), dtype=torch.uint8, device=device)
    length = torch.tensor(text.numel(), device=device)
    dist.all_reduce(length, dist.ReduceOp.MAX)
    padded = F.pad(text, (0, int(length) - text.numel()), value=ord("\n"))
    texts = [torch.empty_like(padded) for _ in range(world()[1])]
    dist.all_gather(texts, padded)
    return sorted({name for one in texts for name in bytes(one.tolist()).decode().split("\n") if name})
