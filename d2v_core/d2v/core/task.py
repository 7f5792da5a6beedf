"""What can be trained on top of a pretrained encoder, as core sees it.

`finetune`, `evaluate` and `predict` know a task by this protocol alone. A task is a configuration: a frozen attrs class
that stands in a recipe under `task` and travels with the weights. What its labels are is a value that it asks the data
for; how well the module does is a scorer's to say.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self

from torch import nn

from d2v.core.labels import Labels
from d2v.core.model import Batch, Student, StudentConfig

__all__ = ["Evaluation", "Scorer", "Task"]


class Evaluation(Protocol):
    """What a scorer found out."""

    def metrics(self) -> Mapping[str, float]:
        """Finite numbers by name."""
        ...

    def undefined(self) -> Mapping[str, str]:
        """Metrics that have no value here, by name, with the reason: 0 / 0, a correlation with a constant."""
        ...

    def tables(self) -> str:
        """What a person reads beside the metrics: text of several lines, or nothing."""
        ...


class Scorer(Protocol):
    """Adds up how well a module does, batch by batch; the form is that of torchmetrics.

    It can be pickled, so that processes can exchange theirs.

    Attributes:
        lower_is_better: names of the metrics of which less is better.
    """

    lower_is_better: ClassVar[frozenset[str]]

    def update(self, outputs: Any, batch: Batch) -> None:
        """Count a batch.

        Args:
            outputs: as `Task.outputs` gives them.
            batch: with labels.

        Raises:
            ValueError: if the labels are not those of the scorer, or outputs do not fit them or are not finite.
        """
        ...

    def merge_state(self, others: Iterable[Self]) -> None:
        """Count what others have counted too."""
        ...

    def compute(self) -> Evaluation:
        """What was found out.

        Raises:
            ValueError: if nothing was scored.
        """
        ...


class Task(Protocol):
    """A task: its module, and how that is measured and used.

    Attributes:
        modality: name of the adapter that it runs through.
        labels: what it asks the data for.
        best: metric by which the best checkpoint is told.
        use_options: fields that may be changed where a trained model is used; what the others say is built in.
    """

    modality: ClassVar[str]
    labels: ClassVar[type[Labels]]
    best: ClassVar[str]
    use_options: ClassVar[frozenset[str]]

    def adapt(self, config: StudentConfig) -> StudentConfig:
        """The student's configuration with the task's regularisation (drop path, dropout) written over its own."""
        ...

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> nn.Module:
        """A module around the encoder whose `forward(batch, update=n)` gives a `StepOutput`.

        Args:
            encoder: kept as `module.encoder`.
            embed_dim: d, its width.
            labels: of the class that the task asks for.

        Raises:
            ValueError: if the task needs others than these.
        """
        ...

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Any:
        """What the task's scorer takes: logits, decoded sequences; the module is in eval mode, without gradients."""
        ...

    def scorer(self, labels: Labels) -> Scorer:
        """A new scorer that has counted nothing."""
        ...

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        """One mapping of plain values a sample; the module is in eval mode, without gradients."""
        ...
