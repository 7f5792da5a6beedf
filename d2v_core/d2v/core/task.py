"""What can be trained on top of a pretrained encoder, as core sees it.

`finetune`, `evaluate` and `predict` know a task by this protocol alone. A task is a configuration: a frozen attrs class
that stands in a recipe under `task` and travels with the weights.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

from torch import nn

from d2v.core.model import Batch, Student, StudentConfig

__all__ = ["Evaluation", "Task"]


class Evaluation(Protocol):
    """What a task's evaluation found out."""

    def metrics(self) -> Mapping[str, float]:
        """Figures by name."""
        ...

    def tables(self) -> str:
        """What a person reads beside the figures: text of several lines, or nothing."""
        ...


class Task(Protocol):
    """A task: its module, and how that is measured and used.

    Attributes:
        modality: name of the adapter that it runs through.
        best: metric by which the best checkpoint is told.
        higher: whether more of it is better.
    """

    modality: ClassVar[str]
    best: ClassVar[str]
    higher: ClassVar[bool]

    def adapt(self, config: StudentConfig) -> StudentConfig:
        """The student's configuration with the task's regularisation (drop path, dropout) written over its own."""
        ...

    def build(self, encoder: Student, *, embed_dim: int, classes: tuple[str, ...]) -> nn.Module:
        """A module around the encoder whose `forward(batch, update=n)` gives a `StepOutput`.

        Args:
            encoder: kept as `module.encoder`.
            embed_dim: d, its width.
            classes: what the data can be told to be.

        Raises:
            ValueError: if the task needs other classes than these.
        """
        ...

    def evaluate(self, module: nn.Module, batches: Iterable[Batch], *, classes: tuple[str, ...]) -> Evaluation:
        """Measure on labelled batches; the module is in eval mode, without gradients.

        Raises:
            ValueError: if there are no labels.
        """
        ...

    def predict(self, module: nn.Module, batch: Batch, *, classes: tuple[str, ...]) -> list[dict[str, Any]]:
        """One mapping of plain values a sample; the module is in eval mode, without gradients."""
        ...
