"""Interface of fine-tuning tasks: what can be trained on top of a pretrained encoder.

`finetune`, `evaluate` and `predict` depend only on these protocols. A task is a configuration: a frozen attrs class
that is the section `task` of a recipe and is saved with the weights. The data provides its labels, and a scorer
computes its metrics.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from torch import nn

from d2v.core.labels import Labels
from d2v.core.model import Batch, Student, StudentConfig

__all__ = ["Evaluation", "Scorer", "Task", "TwoStepTask"]


class Evaluation(Protocol):
    """Result of a scorer."""

    def metrics(self) -> Mapping[str, float]:
        """Return metrics by name, all finite."""
        ...

    def undefined(self) -> Mapping[str, str]:
        """Return the metrics without a value, by name, with the reason: 0 / 0, a correlation with a constant."""
        ...

    def tables(self) -> str:
        """Return tables to print in addition to the metrics: text of several lines, or an empty string."""
        ...


class Scorer(Protocol):
    """Accumulates the metrics of a module batch by batch, with the interface of torchmetrics.

    Scorers must be picklable, so that processes can exchange them.

    Attributes:
        lower_is_better: names of the metrics for which lower is better.
    """

    lower_is_better: ClassVar[frozenset[str]]

    def update(self, outputs: Any, batch: Batch) -> None:
        """Add a batch.

        Args:
            outputs: output of `Task.outputs`.
            batch: batch with labels.

        Raises:
            ValueError: if the labels are not those of the scorer, or outputs do not fit them or are not finite.
        """
        ...

    def merge_state(self, others: Iterable[Self]) -> None:
        """Add the batches of other scorers."""
        ...

    def compute(self) -> Evaluation:
        """Return the result.

        Raises:
            ValueError: if nothing was scored.
        """
        ...


class Task(Protocol):
    """A task: its module, scorer and predictions.

    Attributes:
        modality: name of the adapter that it uses.
        labels: type of labels that the data must provide.
        best: metric by which the best checkpoint is selected.
        use_options: fields that may be changed when a trained model is used; the other fields are fixed by training.
    """

    modality: ClassVar[str]
    labels: ClassVar[type[Labels]]
    best: ClassVar[str]
    use_options: ClassVar[frozenset[str]]

    def adapt(self, config: StudentConfig) -> StudentConfig:
        """Return the student's configuration with the regularisation of the task (drop path, dropout)."""
        ...

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> nn.Module:
        """Build a module around the encoder whose `forward(batch, update=n)` returns a `StepOutput`.

        Args:
            encoder: pretrained encoder, stored as `module.encoder`.
            embed_dim: d, width of the encoder.
            labels: labels of the type that the task needs.

        Raises:
            ValueError: if the task does not support these labels.
        """
        ...

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Any:
        """Return the input of the scorer: logits, decoded sequences; the module is in eval mode, without gradients."""
        ...

    def scorer(self, labels: Labels) -> Scorer:
        """Return a new scorer.

        Jobs make one before they read any data, so that a task's own wrong files are reported early.

        Raises:
            DataError: if a file that the task names cannot be used.
            MissingExtraError: if the task needs packages that are not installed.
        """
        ...

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """Return one mapping of plain values per sample; the module is in eval mode, without gradients."""
        ...


@runtime_checkable
class TwoStepTask(Task, Protocol):
    """A task that computes its outputs in two steps: those of the module, and a search that `use_options` change.

    `evaluate` can therefore compare many values of such options with one pass of the module over the data.
    """

    def results(self, module: nn.Module, batch: Batch) -> Any:
        """Return the results of the module, the first step of `outputs`; independent of `use_options`."""
        ...

    def decode(self, results: Any, *, labels: Labels) -> Any:
        """Return the input of the scorer, as `outputs`."""
        ...
