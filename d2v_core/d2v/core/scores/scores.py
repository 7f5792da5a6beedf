"""The result of a scorer, and checks that all scorers share."""

from collections.abc import Iterable, Mapping
from typing import Self

import torch
from attrs import field, frozen
from torch import Tensor

from d2v.core.finite import NotFiniteError


@frozen(kw_only=True)
class Scores:
    """Metrics of a split.

    Args:
        values: metrics by name.
        reasons: why a metric has no value, by the name of the metric.
        text: readable text that complements the values.
        files: contents of text files with the single predictions, by their names.

    >>> Scores(values={"mse": 0.5}, reasons={"pearson": "all labels are equal"}).undefined()
    {'pearson': 'all labels are equal'}
    """

    values: Mapping[str, float]
    reasons: Mapping[str, str] = field(factory=dict)
    text: str = ""
    files: Mapping[str, str] = field(factory=dict, repr=False)

    def metrics(self) -> Mapping[str, float]:
        """Values by name."""
        return self.values

    def undefined(self) -> Mapping[str, str]:
        """Why a metric has no value."""
        return self.reasons

    def tables(self) -> str:
        """Text that complements the values."""
        return self.text


class Kept:
    """Outputs and labels of a split on the CPU, for metrics that need all of them together."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.truths: list[Tensor] = []

    def merge_state(self, others: Iterable[Self]) -> None:
        """Add the batches of other scorers."""
        for other in others:
            self.outputs += other.outputs
            self.truths += other.truths

    def whole(self) -> tuple[Tensor, Tensor]:
        """Outputs and labels of all batches.

        Raises:
            ValueError: if there were none.
        """
        if not sum(map(len, self.truths)):
            raise nothing_scored()
        return torch.cat(self.outputs), torch.cat(self.truths)


def nothing_scored() -> ValueError:
    """The error that `compute` raises if there were no batches."""
    return ValueError("nothing was scored: there were no labelled samples")


def check_outputs(outputs: Tensor, shape: tuple[int, ...], what: str, *, ids: Tensor | None = None) -> None:
    """Raise if outputs do not have this shape or are not finite.

    Args:
        outputs: of a batch.
        shape: expected shape.
        what: description of the expected outputs.
        ids: of the samples, for the message; None = positions in the batch.

    Raises:
        ValueError: naming the expected shape, or the samples whose outputs are not finite.
    """
    if outputs.shape != shape:
        raise ValueError(f"outputs {tuple(outputs.shape)} must be {shape}: {what}")
    if not bool(outputs.isfinite().all()):
        bad = (~outputs.reshape(len(outputs), -1).isfinite().all(1)).nonzero()[:, 0].tolist()
        raise NotFiniteError("outputs", bad if ids is None else ids[bad].tolist())


def aligned(rows: list[list[str]], *, left: int) -> list[str]:
    """Lines of a table: the first `left` columns are aligned left, the others right.

    >>> aligned([["class", "count"], ["cat", "1"]], left=1)
    ['class  count', 'cat        1']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
