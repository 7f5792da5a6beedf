"""Scores of multi-label classification: mean average precision and a table of the classes."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from d2v.core.labels import MultiLabel
from d2v.core.model import Batch
from d2v.core.scores.scores import Kept, Scores, aligned, check_outputs

_WHOLE = 20  # a longer table does not fit a screen
_LOWEST = 10


class MultiLabelScorer(Kept):
    """Keep outputs and labels of a split on the CPU.

    `map` is the mean over the classes of the average precision, in percent; classes without samples are left out.
    `loss` is the binary cross-entropy, summed over the classes, mean over the samples.

    Args:
        labels: the classes.

    >>> scorer = MultiLabelScorer(MultiLabel(("speech", "music")))
    >>> labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> outputs = torch.tensor([[3.0, 2.0], [-3.0, 1.0], [2.0, 3.0]])
    >>> scorer.update(outputs, Batch(source=torch.zeros(3, 1), labels=labels))
    >>> round(scorer.compute().metrics()["map"], 2)
    91.67
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset({"loss"})

    def __init__(self, labels: MultiLabel) -> None:
        super().__init__()
        self.labels = labels

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Add a batch.

        Args:
            outputs: logits `b c`.
            batch: with labels `b c`, each 0 or 1.

        Raises:
            ValueError: if shapes do not fit, a label is between 0 and 1, or outputs are not finite.
        """
        self.labels.check(batch)
        check_outputs(outputs, (batch.size, self.labels.num_outputs), "a logit for each class", ids=batch.ids)
        assert batch.labels is not None  # checked above
        truth = batch.labels.bool()
        if not torch.equal(truth.to(batch.labels.dtype), batch.labels):
            raise ValueError("labels between 0 and 1 cannot be scored; give 0 or 1 for each class")
        self.outputs.append(outputs.detach().float().cpu())
        self.truths.append(truth.cpu())

    def compute(self) -> Scores:
        """The scores of all batches.

        Raises:
            ValueError: if there were none.
        """
        outputs, truth = self.whole()
        values = {
            "loss": F.binary_cross_entropy_with_logits(outputs, truth.float(), reduction="sum").item() / len(truth)
        }
        precisions, reasons = self._precisions(outputs, truth), {}
        if precisions:
            values["map"] = 100 * sum(precisions.values()) / len(precisions)
        else:
            reasons["map"] = "no class has a sample"
        return Scores(values=values, reasons=reasons, text=self._table(truth.sum(0).tolist(), precisions))

    def _precisions(self, outputs: Tensor, truth: Tensor) -> dict[int, float]:
        """Average precision by class index."""
        from torchmetrics.functional.classification import binary_average_precision

        found = {}
        for number in truth.any(0).nonzero()[:, 0].tolist():
            # Ranks instead of logits: torchmetrics applies a sigmoid outside of 0 to 1, which makes large ones equal.
            values, ranks = torch.unique(outputs[:, number], return_inverse=True)
            found[number] = binary_average_precision(ranks.double() / len(values), truth[:, number].long()).item()
        return found

    def _table(self, counts: list[int], precisions: dict[int, float]) -> str:
        listed = list(range(len(counts)))
        title = []
        if len(counts) > _WHOLE:
            listed = sorted(precisions, key=lambda number: precisions[number])[:_LOWEST]
            title = ["classes with the lowest average precision"]
        rows = [["class", "count", "average precision"]]
        for number in listed:
            precision = f"{precisions[number]:.3f}" if number in precisions else "-"
            rows.append([self.labels.names[number], str(counts[number]), precision])
        left_out = len(counts) - len(precisions)
        note = [f"{left_out} of {len(counts)} classes have no sample and are left out of map"] if left_out else []
        return "\n".join([*title, *aligned(rows, left=1), *note])
