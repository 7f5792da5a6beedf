"""How well classes were told apart: accuracies, loss, confusions, and a table of the classes.

Sums are kept, so that a split is scored batch by batch. Nothing here knows what was classified.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

__all__ = ["ClassRow", "ClassScorer", "ClassScores"]

_TOP = 5
_WHOLE = 20  # a wider confusion matrix does not fit a screen
_CONFUSIONS = 10


@frozen(kw_only=True)
class ClassRow:
    """One class in the table; fractions are from 0 to 1, and NaN where they would be 0 / 0.

    Args:
        name: of the class.
        count: samples that are of it.
        recall: fraction of these that were told to be of it.
        precision: fraction of those told to be of it that are.
        f1: harmonic mean of both, 2 hits / (count + told).
    """

    name: str
    count: int
    recall: float
    precision: float
    f1: float


@frozen(kw_only=True, eq=False)
class ClassScores:
    """Scores of a split.

    Args:
        classes: names in the order of their numbers.
        confusion: Long `c c`, samples by their class (row) and the class they were told to be of (column).
        top: k, at most 5 and the number of classes.
        hits_top: samples whose class is among the k highest scores.
        loss_sum: cross-entropy, summed over the samples.
    """

    classes: tuple[str, ...]
    confusion: Tensor
    top: int
    hits_top: int
    loss_sum: float

    @property
    def count(self) -> int:
        """Samples."""
        return int(self.confusion.sum())

    def metrics(self) -> dict[str, float]:
        """Mean `loss`, and in percent `accuracy` and `top5_accuracy` (named for k where there are fewer classes)."""
        n = self.count
        return {
            "loss": self.loss_sum / n,
            "accuracy": 100 * int(self.confusion.diagonal().sum()) / n,
            f"top{self.top}_accuracy": 100 * self.hits_top / n,
        }

    def rows(self) -> list[ClassRow]:
        """The table of the classes."""
        hits, counts, told = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        return [
            ClassRow(
                name=name,
                count=count,
                recall=_fraction(hit, count),
                precision=_fraction(hit, said),
                f1=_fraction(2 * hit, count + said),
            )
            for name, hit, count, said in zip(self.classes, hits.tolist(), counts.tolist(), told.tolist(), strict=True)
        ]

    def confusions(self, count: int = _CONFUSIONS) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: class, what it was told to be, and how often; most frequent first."""
        wrong = self.confusion.clone().fill_diagonal_(0)
        order = wrong.flatten().argsort(descending=True, stable=True)[:count].tolist()
        found = [(*divmod(place, len(self.classes)), int(wrong.flatten()[place])) for place in order]
        return [(self.classes[truth], self.classes[told], often) for truth, told, often in found if often]

    def tables(self) -> str:
        """The table of the classes and the confusion matrix as plain text.

        Of more than 20 classes the most frequent confusions stand in place of the matrix.
        """
        table = [["class", "count", "recall", "precision", "F1"]]
        for row in self.rows():
            fractions = [
                "-" if math.isnan(fraction) else f"{fraction:.3f}" for fraction in (row.recall, row.precision, row.f1)
            ]
            table.append([row.name, str(row.count), *fractions])
        if len(self.classes) > _WHOLE:
            confused = [[truth, told, str(often)] for truth, told, often in self.confusions()]
            lines = ["most frequent confusions", *_aligned([["class", "told to be", "times"], *confused], left=2)]
        else:
            numbers = [str(number) for number in range(len(self.classes))]
            matrix = [["", "class", *numbers]]
            matrix += [
                [number, name, *map(str, row)]
                for number, name, row in zip(numbers, self.classes, self.confusion.tolist(), strict=True)
            ]
            lines = ["confusion matrix (row: class, column: told to be)", *_aligned(matrix, left=2)]
        return "\n".join([*_aligned(table, left=1), "", *lines])


class ClassScorer:
    """Adds up the scores of a split, batch by batch, in the memory of the processor.

    Args:
        classes: names in the order of their numbers.

    Raises:
        ValueError: if there are no classes.

    >>> scorer = ClassScorer(["cat", "dog"])
    >>> scorer.add(torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1, 1]))
    >>> scores = scorer.result()
    >>> {name: round(value, 2) for name, value in scores.metrics().items()}
    {'loss': 0.79, 'accuracy': 66.67, 'top2_accuracy': 100.0}
    >>> print(scores.tables())
    class  count  recall  precision     F1
    cat        1   1.000      0.500  0.667
    dog        2   0.500      1.000  0.667
    <BLANKLINE>
    confusion matrix (row: class, column: told to be)
       class  0  1
    0  cat    1  0
    1  dog    1  1
    """

    def __init__(self, classes: Sequence[str]) -> None:
        if not classes:
            raise ValueError("there are no classes to score")
        self.classes = tuple(classes)
        self.top = min(_TOP, len(self.classes))
        self.confusion = torch.zeros(len(self.classes), len(self.classes), dtype=torch.long)
        """Long `c c`; add those of other processes before `result`, and likewise the sums."""
        self.sums = torch.zeros(2, dtype=torch.float64)
        """Samples whose class is among the `top` highest scores, and summed cross-entropy."""

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Of equal scores the class that comes first counts as the higher one.

        Args:
            logits: `b c`.
            labels: Long `b`.

        Raises:
            ValueError: if shapes do not fit or a label is not the number of a class.
        """
        c = len(self.classes)
        if logits.dim() != 2 or logits.shape[1] != c or labels.shape != logits.shape[:1]:
            raise ValueError(
                f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} must be (b, {c}) and (b,) "
                f"for {c} classes"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < c:
            raise ValueError(f"labels from {int(labels.min())} to {int(labels.max())} do not fit {c} classes")
        # Not topk: its order of equal scores is arbitrary, and a collapsed model must not look better than chance.
        ranked = logits.argsort(dim=1, descending=True, stable=True)
        hits = (ranked[:, : self.top] == labels[:, None]).sum()
        loss = F.cross_entropy(logits.float(), labels, reduction="none").cpu().double().sum()
        truth, told = labels.cpu(), ranked[:, 0].cpu()
        self.confusion.index_put_((truth, told), torch.ones_like(truth), accumulate=True)
        self.sums += torch.stack([hits.cpu().double(), loss])

    def result(self) -> ClassScores:
        """The scores of all that was added.

        Raises:
            ValueError: if nothing was added.
        """
        if not self.confusion.any():
            raise ValueError("nothing was scored: there were no labelled samples")
        hits, loss = self.sums.tolist()
        return ClassScores(
            classes=self.classes, confusion=self.confusion.clone(), top=self.top, hits_top=int(hits), loss_sum=loss
        )


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _aligned(rows: list[list[str]], *, left: int) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
