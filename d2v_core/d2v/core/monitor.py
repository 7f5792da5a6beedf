"""Collapse monitor: standard deviation, rank and position fraction of the targets, with rules to warn and to stop.

The standard deviation that the published code monitors does not detect a collapse of normalised targets: it stays the
same while the targets no longer depend on the sample. The monitor needs predictions, targets and the mask, and does not
depend on the model or the loop.
"""

import logging
import math
from typing import Any

import torch
from attrs.validators import ge
from torch import Tensor
from torch import distributed as dist

from d2v.core.masks import Mask
from d2v.core.moments import Moments
from d2v.core.validators import check

_LOGGER = logging.getLogger(__name__)
_MAX_ROWS = 1024  # enough rows for a rank, and an eigenvalue problem that takes a fraction of a second
_PUBLISHED_START = 5000  # number of updates before the published rule applies
_MAX_FIRST_FRACTION = 0.75  # a first report above it is not a baseline: the run had already collapsed
_ADVICE = "try a higher EMA decay, a lower learning rate or a longer warm-up"


class CollapseError(RuntimeError):
    """The targets or predictions have collapsed; the model would learn nothing from further training."""


def standard_deviation(x: Tensor) -> Tensor:
    """Return the mean over channels of sqrt(unbiased variance over rows + 1e-6): `pred_var` and `target_var`.

    Args:
        x: `n d`, n >= 2.

    Returns:
        A float32 scalar.

    >>> standard_deviation(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
    tensor(0.7076)
    """
    return (x.float().var(0) + 1e-6).sqrt().mean()


def effective_rank(x: Tensor) -> float:
    """Return the effective rank of the rows: exp of the entropy of the covariance's normalised eigenvalues.

    Args:
        x: `n d`; costs min(n, d)^3.

    Returns:
        Between 1 and min(n - 1, d); 0 if all rows are equal, nan if a value is not finite.

    >>> round(effective_rank(torch.tensor([[1.0, 0, 5], [-1, 0, 5], [0, 1, 5], [0, -1, 5]])), 6)
    2.0
    """
    # Double precision is not affected by autocast and TF32, which would distort the small eigenvalues.
    x = x.detach().to("cpu" if x.device.type == "mps" else x.device, torch.float64)
    if not x.isfinite().all():
        return math.nan
    x = x - x.mean(0)
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    total = values.sum()
    return torch.where(total > 0, torch.special.entr(values / total).sum().exp(), 0.0).item()


class CollapseMonitor:
    """Monitors predictions and targets at hidden positions, at logging intervals.

    `update` adds a batch without synchronising with the device. `report` returns metrics of the batches since the last
    report, over all workers. `check` warns or raises. With N distinct (sample, position) pairs (clones share their
    targets):

    - target_var, pred_var: `standard_deviation`.
    - explained: 1 - mean squared error / variance of the targets.
    - position_fraction: 1 - (W / (N - G)) / (T / (N - 1)), the fraction of the targets' variance that the position
      alone explains, corrected for chance. T = squared distance of the targets from their mean, W = from the mean of
      their position, G = number of positions. About 0 for targets that differ by sample, 1 if all samples have the same
      targets.
    - target_rank, prediction_rank: `effective_rank` of at most 1,024 rows of the last batch, averaged over workers.

    A warning is given once until its cause ends: if the target rank falls below half of that of the first report, the
    position fraction rises by 20 % of the way from its first value f to 1, or the explained fraction exceeds 0.98.
    Speech starts at f = 0.05, Fashion-MNIST, whose objects are centred, at 0.39. f counts as at most 0.75.

    Args:
        min_target_var: stop after 5,000 updates if target_var is below this value (the published rule); 0 = off.
        min_pred_var: stop after 5,000 updates if pred_var is below this value; 0 = off.
        warmup: number of updates without warnings and without the rule of `stop`, usually the learning rate's warm-up,
            in which the targets of a healthy run may narrow for a while.
        stop: whether to stop when the target rank falls below a quarter of that of the first report, or the position
            fraction rises by half of the way from f to 1; False = only warn.

    Raises:
        ValueError: if a value is negative.

    >>> monitor = CollapseMonitor()
    >>> mask = Mask(hidden=torch.ones(8, 4, dtype=torch.bool))
    >>> targets = torch.randn(4, 6).repeat(8, 1)  # the same in every sample
    >>> monitor.update(torch.zeros(32, 6), targets, mask)
    >>> round(monitor.report()["position_fraction"], 6)
    1.0
    """

    def __init__(
        self, *, min_target_var: float = 0.0, min_pred_var: float = 0.0, warmup: int = 0, stop: bool = True
    ) -> None:
        check(ge(0), min_target_var=min_target_var, min_pred_var=min_pred_var, warmup=warmup)  # 0 switches it off
        self.min_target_var = min_target_var
        self.min_pred_var = min_pred_var
        self.warmup = warmup
        self.stop = stop
        self._moments = Moments()
        self._rows: tuple[Tensor, Tensor] | None = None  # predictions and targets to compute ranks from
        self._first_rows: Tensor | None = None  # rows of the targets in the first report
        self._first_fraction: float | None = None
        self._seen: dict[str, float] = {}
        self._warned: set[str] = set()

    @torch.no_grad()
    def update(self, predictions: Tensor, targets: Tensor, mask: Mask) -> None:
        """Add a batch; every worker must add at least one between two reports.

        Args:
            predictions: `n d`.
            targets: `n d`, at the hidden positions in the order of `mask.index`.
            mask: mask of the batch.

        Raises:
            ValueError: if the shapes differ or do not fit the mask.
        """
        n = mask.index.shape[0]
        if predictions.shape != targets.shape or targets.dim() != 2 or targets.shape[0] != n:
            shapes = f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
            raise ValueError(f"predictions and targets must both be n d with n={n} hidden positions, not {shapes}")
        if n:
            self._moments.add(predictions.float(), targets.float(), mask)
            self._rows = _evenly(predictions.float(), _MAX_ROWS), _evenly(targets.float(), _MAX_ROWS)

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """Return metrics since the last report, without those that are undefined (too few rows) or not finite."""
        if self._rows is None:
            return {}
        report = self._moments.report()
        ranks = [effective_rank(rows) for rows in self._rows]
        kept = self._rank_kept(self._rows[1], ranks[1])
        prediction_rank, target_rank, kept = _mean_over_workers([*ranks, kept], self._rows[0].device)
        report |= {"target_rank": target_rank, "prediction_rank": prediction_rank}
        self._moments, self._rows = Moments(), None
        self._seen = {
            **report,
            "rank_kept": kept,
            "fraction_risen": self._fraction_risen(report.get("position_fraction")),
        }
        return {name: value for name, value in report.items() if math.isfinite(value)}

    def check(self, update: int) -> None:
        """Warn if the run may be collapsing, and stop it if it has collapsed, based on the last report.

        Args:
            update: number of finished updates.

        Raises:
            CollapseError: if a rule to stop applies.
        """
        seen = self._seen
        if not seen:
            return
        if update > _PUBLISHED_START:
            for name, low in (("target_var", self.min_target_var), ("pred_var", self.min_pred_var)):
                if seen.get(name, math.inf) < low:
                    raise CollapseError(
                        f"at update {update} {name}={seen[name]:.4g} is below min_{name}={low}; {_ADVICE}"
                    )
        if update < self.warmup:
            return
        self._warn()
        if not self.stop:
            return
        advice = f"{_ADVICE}, or continue with stop=False"
        if seen["rank_kept"] < 0.25:
            raise CollapseError(
                f"at update {update} the effective rank of the targets is {seen['target_rank']:.3g}, "
                f"{seen['rank_kept']:.0%} of its first value; {advice}"
            )
        if seen["fraction_risen"] > 0.5:
            raise CollapseError(
                f"at update {update} the position alone explains {seen['position_fraction']:.0%} of the variance of "
                f"the targets, so they hardly depend on the sample; {advice}"
            )

    def state_dict(self) -> dict[str, Any]:
        """State to save in a checkpoint: values of the first report."""
        return {"rows": self._first_rows, "position_fraction": self._first_fraction}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self._first_rows, self._first_fraction = state["rows"], state["position_fraction"]

    def _rank_kept(self, rows: Tensor, rank: float) -> float:
        """Return the target rank relative to the first report, from equally many rows: fewer rows have a lower rank."""
        if math.isnan(rank):
            return rank
        if self._first_rows is None:
            self._first_rows = rows
        n = min(rows.shape[0], self._first_rows.shape[0])
        now = rank if n == rows.shape[0] else effective_rank(_evenly(rows, n))
        first = effective_rank(_evenly(self._first_rows, n))
        return now / first if first else 1.0

    def _fraction_risen(self, fraction: float | None) -> float:
        """Return the rise of the position fraction, as a fraction of the way from its first value to 1."""
        if fraction is None:
            return 0.0
        if self._first_fraction is None:
            self._first_fraction = fraction
        first = min(max(self._first_fraction, 0.0), _MAX_FIRST_FRACTION)
        return (fraction - first) / (1 - first)

    def _warn(self) -> None:
        seen = self._seen
        kept, fraction, explained = seen["rank_kept"], seen.get("position_fraction", 0.0), seen.get("explained", 0.0)
        causes = {
            "rank": (
                kept < 0.5,
                f"the effective rank of the targets fell to {seen['target_rank']:.3g}, {kept:.0%} of its first value: "
                f"they may be collapsing; {_ADVICE}",
            ),
            "position": (
                seen["fraction_risen"] > 0.2,
                f"the position alone explains {fraction:.0%} of the variance of the targets: they may be "
                f"collapsing; {_ADVICE}",
            ),
            "explained": (
                explained > 0.98,
                f"the predictions explain {explained:.1%} of the targets' variance: the task has become trivial; "
                "see position_fraction and target_rank",
            ),
        }
        for kind, (holds, message) in causes.items():
            if holds and kind not in self._warned:
                _LOGGER.warning(message)
        self._warned = {kind for kind, (holds, _) in causes.items() if holds}


def _evenly(x: Tensor, n: int) -> Tensor:
    """Return a copy of at most n rows of x, evenly spaced."""
    n = min(n, x.shape[0])
    return x[torch.arange(n, device=x.device) * x.shape[0] // n]


def _mean_over_workers(values: list[float], device: torch.device) -> list[float]:
    if not (dist.is_available() and dist.is_initialized()):
        return values
    total = torch.tensor(values, device=device)
    dist.all_reduce(total)
    mean: list[float] = (total / dist.get_world_size()).tolist()
    return mean
