"""Scores of regression: squared error and correlations."""

from typing import ClassVar

from torch import Tensor

from d2v.core.labels import Number
from d2v.core.model import Batch
from d2v.core.scores.scores import Kept, Scores, check_outputs

_MOST_RANKED = 65_535  # torchmetrics sums ranks in 32 bits, which overflow with more samples


class NumberScorer(Kept):
    """Keep outputs and labels of a split on the CPU.

    `mse` is the mean squared error; `pearson`, `spearman` and their mean `pearson_and_spearman` are in percent.

    Args:
        labels: the label type.

    >>> import torch
    >>> scorer = NumberScorer(Number())
    >>> batch = Batch(source=torch.zeros(3, 1), labels=torch.tensor([0.0, 1.0, 2.0]))
    >>> scorer.update(torch.tensor([0.5, 1.0, 4.0]), batch)
    >>> {name: round(value, 2) for name, value in scorer.compute().metrics().items()}
    {'mse': 1.42, 'pearson': 92.45, 'spearman': 100.0, 'pearson_and_spearman': 96.22}
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset({"mse"})

    def __init__(self, labels: Number) -> None:
        super().__init__()
        self.labels = labels

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Add a batch.

        Args:
            outputs: `b`, on the scale of the labels.
            batch: with labels `b`.

        Raises:
            ValueError: if shapes do not fit, or a number is not finite or out of range.
        """
        self.labels.check(batch)
        check_outputs(outputs, (batch.size,), "a number for each sample", ids=batch.ids)
        assert batch.labels is not None  # checked above
        self.outputs.append(outputs.detach().cpu().double())
        self.truths.append(batch.labels.cpu().double())

    def compute(self) -> Scores:
        """The scores of all batches.

        Raises:
            ValueError: if there were none.
        """
        outputs, truth = self.whole()
        values, reasons = {"mse": (outputs - truth).square().mean().item()}, {}
        for name, metric in (("pearson", _pearson), ("spearman", _spearman)):
            found = metric(outputs, truth)
            if isinstance(found, str):
                reasons[name] = found
            else:
                values[name] = 100 * found
        if reasons:
            reasons["pearson_and_spearman"] = next(iter(reasons.values()))
        else:
            values["pearson_and_spearman"] = (values["pearson"] + values["spearman"]) / 2
        return Scores(values=values, reasons=reasons)


def _pearson(outputs: Tensor, truth: Tensor) -> float | str:
    """The correlation, or why it is undefined."""
    from torchmetrics.functional.regression import pearson_corrcoef

    return _constant(outputs, truth) or float(pearson_corrcoef(outputs, truth))


def _spearman(outputs: Tensor, truth: Tensor) -> float | str:
    """The correlation of the ranks, or why it is undefined."""
    from torchmetrics.functional.regression import spearman_corrcoef

    if len(truth) > _MOST_RANKED:
        return f"rank correlation supports at most {_MOST_RANKED:,} samples, not {len(truth):,}"
    return _constant(outputs, truth) or float(spearman_corrcoef(outputs, truth))


def _constant(outputs: Tensor, truth: Tensor) -> str | None:
    if len(truth) < 2:
        return "there is only one sample"
    for name, numbers in (("labels", truth), ("predictions", outputs)):
        if bool((numbers == numbers[0]).all()):
            return f"all {name} are equal"
    return None
