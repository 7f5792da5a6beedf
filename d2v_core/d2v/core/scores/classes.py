"""Scores of classification: accuracies, loss, confusion matrix, and a table of the classes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor

from d2v.core.labels import Classes
from d2v.core.model import Batch
from d2v.core.scores.scores import aligned, check_outputs, nothing_scored

ClassMetric = Literal["mcc", "f1", "acc_and_f1", "calibration_error"]
_TOP = 5
_WHOLE = 20  # a larger confusion matrix does not fit a screen
_CONFUSIONS = 10
_BINS = 15


@frozen(kw_only=True)
class ClassRow:
    """One class in the table; fractions are from 0 to 1, and NaN where they would be 0 / 0.

    Args:
        name: of the class.
        count: number of samples of the class.
        recall: fraction of the class's samples that are predicted as it.
        precision: fraction of the samples predicted as the class that belong to it.
        f1: harmonic mean of both, 2 hits / (count + predicted).
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
        confusion: Long `c c`, number of samples by true class (row) and predicted class (column).
        top: k, at most 5 and the number of classes.
        hits_top: number of samples whose class is among the k highest scores.
        loss_sum: cross-entropy, summed over the samples.
        more: further metrics, in percent.
        reasons: why a further metric has no value.
    """

    classes: tuple[str, ...]
    confusion: Tensor
    top: int
    hits_top: int
    loss_sum: float
    more: Mapping[str, float] = field(factory=dict)
    reasons: Mapping[str, str] = field(factory=dict)

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.confusion.sum())

    def metrics(self) -> dict[str, float]:
        """Mean `loss`; in percent `accuracy`, `top5_accuracy` (k in the name if there are fewer classes) and more."""
        n = self.count
        return {
            "loss": self.loss_sum / n,
            "accuracy": 100 * int(self.confusion.diagonal().sum()) / n,
            f"top{self.top}_accuracy": 100 * self.hits_top / n,
            **self.more,
        }

    def undefined(self) -> Mapping[str, str]:
        """Why a metric has no value."""
        return self.reasons

    def rows(self) -> list[ClassRow]:
        """The table of the classes."""
        hits, counts, predicted = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        return [
            ClassRow(
                name=name,
                count=count,
                recall=_fraction(hit, count),
                precision=_fraction(hit, guesses),
                f1=_fraction(2 * hit, count + guesses),
            )
            for name, hit, count, guesses in zip(
                self.classes, hits.tolist(), counts.tolist(), predicted.tolist(), strict=True
            )
        ]

    def confusions(self, count: int = _CONFUSIONS) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: true class, predicted class and count; most frequent first."""
        wrong = self.confusion.clone().fill_diagonal_(0)
        order = wrong.flatten().argsort(descending=True, stable=True)[:count].tolist()
        found = [(*divmod(index, len(self.classes)), int(wrong.flatten()[index])) for index in order]
        return [(self.classes[truth], self.classes[predicted], times) for truth, predicted, times in found if times]

    def tables(self) -> str:
        """The table of the classes and the confusion matrix as plain text.

        With more than 20 classes, the most frequent confusions replace the matrix.
        """
        table = [["class", "count", "recall", "precision", "F1"]]
        for row in self.rows():
            fractions = [
                "-" if math.isnan(fraction) else f"{fraction:.3f}" for fraction in (row.recall, row.precision, row.f1)
            ]
            table.append([row.name, str(row.count), *fractions])
        if len(self.classes) > _WHOLE:
            confused = [[truth, predicted, str(times)] for truth, predicted, times in self.confusions()]
            lines = ["most frequent confusions", *aligned([["class", "predicted", "times"], *confused], left=2)]
        else:
            numbers = [str(number) for number in range(len(self.classes))]
            matrix = [["", "class", *numbers]]
            matrix += [
                [number, name, *map(str, row)]
                for number, name, row in zip(numbers, self.classes, self.confusion.tolist(), strict=True)
            ]
            lines = ["confusion matrix (row: true class, column: predicted)", *aligned(matrix, left=2)]
        return "\n".join([*aligned(table, left=1), "", *lines])


class ClassScorer:
    """Accumulate the scores of a split, batch by batch, on the CPU.

    Args:
        labels: the classes.
        metrics: further metrics, in percent: mcc = Matthews' correlation coefficient; f1 = of the class `positive`, or
            without it the mean over the classes that occur; acc_and_f1 = mean of the accuracy and f1;
            calibration_error = expected, of the highest probability,
            in 15 bins of equal width.
        positive: name of the class for f1; None = mean over the classes.

    Raises:
        ValueError: if `positive` is not a class.

    >>> scorer = ClassScorer(Classes(("cat", "dog")))
    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> scorer.update(logits, Batch(source=torch.zeros(3, 1), labels=torch.tensor([0, 1, 1])))
    >>> scores = scorer.compute()
    >>> {name: round(value, 2) for name, value in scores.metrics().items()}
    {'loss': 0.79, 'accuracy': 66.67, 'top2_accuracy': 100.0}
    >>> print(scores.tables())
    class  count  recall  precision     F1
    cat        1   1.000      0.500  0.667
    dog        2   0.500      1.000  0.667
    <BLANKLINE>
    confusion matrix (row: true class, column: predicted)
       class  0  1
    0  cat    1  0
    1  dog    1  1
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset({"loss", "calibration_error"})

    def __init__(self, labels: Classes, *, metrics: Sequence[ClassMetric] = (), positive: str | None = None) -> None:
        if positive is not None and positive not in labels.names:
            raise ValueError(f"positive={positive!r} is none of the classes {', '.join(labels.names)}")
        self.labels, self.metrics, self.positive = labels, tuple(metrics), positive
        self.top = min(_TOP, labels.num_outputs)
        self.confusion = torch.zeros(labels.num_outputs, labels.num_outputs, dtype=torch.long)
        """Long `c c`: number of samples by true class (row) and predicted class (column)."""
        self.sums = torch.zeros(2, dtype=torch.float64)
        """Number of samples whose class is among the `top` highest scores, and summed cross-entropy."""
        self.sure: list[Tensor] = []
        """For `calibration_error`: the highest probability `b` of each batch."""
        self.hits: list[Tensor] = []
        """For `calibration_error`: Bool `b` of each batch, whether that class is correct."""

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Add a batch.

        Of equal scores, the class with the lower index counts as higher.

        Args:
            outputs: logits `b c`.
            batch: with labels `b`.

        Raises:
            ValueError: if shapes do not fit, a label is not the number of a class, or outputs are not finite.
        """
        self.labels.check(batch)
        check_outputs(outputs, (batch.size, self.labels.num_outputs), "a score for each class", ids=batch.ids)
        assert batch.labels is not None  # checked above
        logits, labels = outputs.detach().float(), batch.labels
        # Not topk: it orders equal scores arbitrarily, and a collapsed model must not score better than chance.
        ranked = logits.argsort(dim=1, descending=True, stable=True)
        hits = (ranked[:, : self.top] == labels[:, None]).sum()
        loss = F.cross_entropy(logits, labels, reduction="none").cpu().double().sum()
        truth, predicted = labels.cpu(), ranked[:, 0].cpu()
        self.confusion.index_put_((truth, predicted), torch.ones_like(truth), accumulate=True)
        self.sums += torch.stack([hits.cpu().double(), loss])
        if "calibration_error" in self.metrics:
            self.sure.append(logits.softmax(1).amax(1).cpu())
            self.hits.append(truth == predicted)

    def merge_state(self, others: Iterable["ClassScorer"]) -> None:
        """Add the counts of other scorers."""
        for other in others:
            self.confusion += other.confusion
            self.sums += other.sums
            self.sure += other.sure
            self.hits += other.hits

    def compute(self) -> ClassScores:
        """The scores of all batches.

        Raises:
            ValueError: if there were none.
        """
        if not self.confusion.any():
            raise nothing_scored()
        functions: dict[str, Callable[[], float | str]] = {
            "mcc": self._mcc,
            "f1": self._f1,
            "acc_and_f1": self._acc_and_f1,
            "calibration_error": self._calibration_error,
        }
        found = {name: functions[name]() for name in self.metrics}
        hits, loss = self.sums.tolist()
        return ClassScores(
            classes=self.labels.names,
            confusion=self.confusion.clone(),
            top=self.top,
            hits_top=int(hits),
            loss_sum=loss,
            more={name: 100 * value for name, value in found.items() if not isinstance(value, str)},
            reasons={name: value for name, value in found.items() if isinstance(value, str)},
        )

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """True and predicted class, Long `n` each, in the order of the confusion matrix."""
        cells = self.confusion.nonzero()
        truth, predicted = cells.repeat_interleave(self.confusion[cells.unbind(1)], dim=0).unbind(1)
        return truth, predicted

    def _mcc(self) -> float | str:
        from torchmetrics.functional.classification import multiclass_matthews_corrcoef

        truth, predicted = self._pairs()
        if bool((truth == truth[0]).all()):
            return "all samples are of one class"
        if bool((predicted == predicted[0]).all()):
            return 0.0  # 0 / 0, by convention 0; torchmetrics uses a limit that depends on the counts
        return float(multiclass_matthews_corrcoef(predicted, truth, self.labels.num_outputs))

    def _f1(self) -> float | str:
        from torchmetrics.functional.classification import multiclass_f1_score

        truth, predicted = self._pairs()
        if self.labels.num_outputs < 2:
            return "there is only one class"
        if self.positive is None:
            return float(multiclass_f1_score(predicted, truth, self.labels.num_outputs, average="macro"))
        number = self.labels.names.index(self.positive)
        if not bool(((truth == number) | (predicted == number)).any()):
            return f"{self.positive!r} is neither the true nor the predicted class of any sample"
        return float(multiclass_f1_score(predicted, truth, self.labels.num_outputs, average=None)[number])

    def _acc_and_f1(self) -> float | str:
        f1 = self._f1()
        accuracy = int(self.confusion.diagonal().sum()) / int(self.confusion.sum())
        return f1 if isinstance(f1, str) else (accuracy + f1) / 2

    def _calibration_error(self) -> float:
        from torchmetrics.functional.classification import binary_calibration_error

        # For the highest probability, the error is binary: whether that class is correct.
        return float(binary_calibration_error(torch.cat(self.sure), torch.cat(self.hits).long(), n_bins=_BINS))


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
