"""Features of samples: values, ids and labels of many batches as one table.

This module is independent of encoders; the raw input is the one kind of features that needs none.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from attrs import evolve, frozen
from torch import Tensor

from d2v.core.model import Batch
from d2v.core.probes.labelled import Labelled
from d2v.core.suggestions import nearest


@frozen(kw_only=True, eq=False)
class Features:
    """Features of n samples, on the CPU.

    Args:
        values: name of a choice of layers to pooling to float32 `n d`, `n (4 d)` or, for "tokens", `n t d`.
        ids: Long `n`, the ids of the samples, or their positions in the pass.
        labels: Long `n`, or None if the data do not have one integer for each sample.
        padding: Bool `n t`, True = padding, if "tokens" are among the poolings and any is padded; else None.
        grid: (t,) or (h, w), the layout of "tokens"; None if they are not among the poolings.
    """

    values: Mapping[str, Mapping[str, Tensor]]
    ids: Tensor
    labels: Tensor | None = None
    padding: Tensor | None = None
    grid: tuple[int, ...] | None = None

    def labelled(self, pooling: str = "mean", layers: str = "all") -> Labelled:
        """Features of one pooling with their labels, as input of a probe.

        Raises:
            ValueError: if there are no such features, or no labels.
        """
        for name, known in ((layers, self.values), (pooling, self.values.get(layers, {}))):
            if name not in known:
                raise ValueError(f"no features {name!r}, only {', '.join(known)}{nearest(name, known)}")
        return Labelled(features=self.values[layers][pooling], labels=self.labels)  # type: ignore[arg-type]  # checked


def raw_features(batches: Iterable[Batch]) -> Features | None:
    """The raw input as features, the baseline that an encoder has to beat.

    Args:
        batches: of any size.

    Returns:
        Features under `values["input"]["raw"]`; None if the input is not a fixed number of floats: token ids, padded
        samples or samples of different lengths.

    Raises:
        ValueError: if there is no batch, or some have labels and others not.

    >>> raw_features([Batch(source=torch.zeros(2, 3, 4, 4))]).values["input"]["raw"].shape
    torch.Size([2, 48])
    """
    parts: list[Features] = []
    first, width = 0, None
    for batch in batches:
        padded = batch.padding is not None and bool(batch.padding.any())
        if padded or not batch.source.is_floating_point():
            return None
        x = batch.source.detach().flatten(1).float().cpu()
        width = x.shape[1] if width is None else width
        if x.shape[1] != width:
            return None
        parts.append(evolve(described(batch, first), values={"input": {"raw": x}}))
        first += batch.size
    return joined(parts)


def described(batch: Batch, first: int) -> Features:
    """Features without values; `first` = number of samples before this batch."""
    ids = torch.arange(first, first + batch.size) if batch.ids is None else batch.ids.long().cpu()
    labels = batch.labels
    if labels is not None:
        labels = None if labels.is_floating_point() or labels.dim() != 1 else labels.long().cpu()
    return Features(values={}, ids=ids, labels=labels)


def joined(parts: Sequence[Features]) -> Features:
    """The features of many batches combined into one; see `collect_features`."""
    if not parts:
        raise ValueError("there are no batches to extract features from")
    labels = [part.labels for part in parts if part.labels is not None]
    if 0 < len(labels) < len(parts):
        raise ValueError(f"{len(labels)} of {len(parts)} batches have labels: all or none must have them")
    parts = _same_length(parts)
    values = {
        name: {pooling: torch.cat([part.values[name][pooling] for part in parts]) for pooling in poolings}
        for name, poolings in parts[0].values.items()
    }
    padding = [part.padding for part in parts if part.padding is not None]
    return Features(
        values=values,
        ids=torch.cat([part.ids for part in parts]),
        labels=torch.cat(labels) if labels else None,
        padding=torch.cat(padding) if padding else None,
        grid=parts[0].grid,
    )


def longest_grid(grids: Collection[tuple[int, ...]]) -> tuple[int, ...]:
    """The grid to which tokens of all these grids can be padded.

    Raises:
        ValueError: if there are several grids, and one of them is 2-d.
    """
    if len(grids) > 1 and any(len(grid) > 1 for grid in grids):
        raise ValueError(f"tokens of different grids cannot be combined: {', '.join(map(str, sorted(grids)))}")
    return max(grids)


def _same_length(parts: Sequence[Features]) -> list[Features]:
    """Pad the tokens of all parts to one length; afterwards all parts have a padding, or none has."""
    grids = {part.grid for part in parts if part.grid is not None}
    if len(grids) <= 1 and all(part.padding is None for part in parts):
        return list(parts)
    grid = longest_grid(grids)
    t = torch.Size(grid).numel()
    same = []
    for part in parts:
        n, own = len(part.ids), torch.Size(part.grid or ()).numel()
        padding = torch.zeros(n, own, dtype=torch.bool) if part.padding is None else part.padding
        values = {
            name: {r: F.pad(x, (0, 0, 0, t - own)) if r == "tokens" else x for r, x in poolings.items()}
            for name, poolings in part.values.items()
        }
        same.append(evolve(part, values=values, padding=F.pad(padding, (0, t - own), value=True), grid=grid))
    return same
