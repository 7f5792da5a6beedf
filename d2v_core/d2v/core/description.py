"""What is known of a model: enough to build it, to feed it, and to read its answers."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from torch import nn

from d2v.core.data import Seen
from d2v.core.data.seen import seen_files
from d2v.core.labels import Labels
from d2v.core.model import Data2VecConfig, StudentConfig
from d2v.core.task import Task

__all__ = ["Description"]


@frozen(kw_only=True)
class Description:
    """A model in words.

    Args:
        model: a whole model (`Data2VecConfig`), or the encoder that a task was trained on.
        data: by modality, how its input was prepared: plain values of a data configuration, without the path.
        task: what it was fine-tuned for; None = it is pretrained.
        labels: what those of the task are.
        files: further files that belong to the model, such as a dictionary: content by name.
        seen: which samples it has met, and how, the oldest first.

    Raises:
        ValueError: if there is neither a whole model nor a task, or a task without labels.

    >>> from d2v.core.model import BackboneConfig, BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=8, num_heads=2), depth=1)
    >>> Description(model=BackboneConfig(encoder=encoder, adapters={}))
    Traceback (most recent call last):
    ValueError: an encoder alone is no model that can be used: give the task that it was trained for
    """

    model: Data2VecConfig | StudentConfig
    data: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    task: Task | None = None
    labels: Labels | None = None
    files: Mapping[str, bytes] = field(factory=dict, repr=False)
    seen: tuple[Seen, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.task is None and not isinstance(self.model, Data2VecConfig):
            raise ValueError("an encoder alone is no model that can be used: give the task that it was trained for")
        if self.task is not None and self.labels is None:
            raise ValueError("a task without labels gives answers that nobody can read: give its labels")

    def all_files(self) -> dict[str, bytes]:
        """All that lies beside the weights, by name: `files`, and which samples the model has seen."""
        return {**self.files, **seen_files(self.seen)}

    @property
    def modality(self) -> str:
        """Name of the adapter that its data goes through."""
        return self.task.modality if self.task is not None else self.student.modalities[0]

    @property
    def student(self) -> StudentConfig:
        """The encoder and what belongs to it, without teacher and predictors."""
        return self.model.student if isinstance(self.model, Data2VecConfig) else self.model

    def build(self) -> nn.Module:
        """The module with initial weights."""
        if self.task is not None:
            assert self.labels is not None  # asked when it was made
            return self.task.build(self.student.build(), embed_dim=self.student.embed_dim, labels=self.labels)
        assert isinstance(self.model, Data2VecConfig)
        return self.model.build()
