"""Sums and counts of metrics between two lines of the log, kept on the device until they are asked for."""

from torch import Tensor
from torch import distributed as dist

from d2v.core.train.gradients import world


class Meters:
    """Means of metrics over micro-batches, updates and ranks.

    Every rank adds the same names.

    >>> import torch
    >>> meters = Meters()
    >>> meters.add({"loss": (torch.tensor(6.0), 2)})
    >>> meters.add({"loss": (torch.tensor(3.0), 1)})
    >>> meters.report()
    {'loss': 3.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, metrics: dict[str, tuple[Tensor, int]]) -> None:
        """Take the metrics of a micro-batch, by name as (sum, count)."""
        for name, (total, count) in metrics.items():
            before, counted = self._sums.get(name, (0.0, 0))
            self._sums[name] = before + total.detach().float(), counted + count

    def report(self) -> dict[str, float]:
        """The means since the last report; those without a count are missing."""
        means = {}
        for name in sorted(self._sums):
            total, count = self._sums[name]
            if world()[1] > 1 and isinstance(total, Tensor):
                pair = total.new_tensor([0.0, count])
                pair[0] = total
                dist.all_reduce(pair)
                total, count = pair[0], int(pair[1])
            if count:
                means[name] = float(total) / count
        self._sums = {}
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """What came since the last report; a float holds a float32 exactly."""
        return {name: [float(total), count] for name, (total, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Go on where other meters were."""
        self._sums = {name: (total, int(count)) for name, (total, count) in state.items()}
