"""Description of a model: everything needed to build it, to prepare its input and to interpret its output."""

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
    """Description of a model that is saved with its weights.

    Args:
        model: complete model (`Data2VecConfig`), or an encoder: alone, or the one that a task was trained on.
        data: preprocessing of the input by modality: plain values of a data configuration, without the path.
        task: task of a fine-tuned model; None = pretrained model or encoder.
        labels: labels of the task.
        files: further files that belong to the model, such as a dictionary: content by name.
        seen: samples that the model was trained on or that were held out, oldest first.

    Raises:
        ValueError: if there is a task without labels.

    >>> from d2v.core.model import BackboneConfig, BlockConfig, TransformerConfig
    >>> encoder = TransformerConfig(block=BlockConfig(embed_dim=8, num_heads=2), depth=1)
    >>> type(Description(model=BackboneConfig(encoder=encoder, adapters={})).build()).__name__
    'Backbone'
    """

    model: Data2VecConfig | StudentConfig
    data: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    task: Task | None = None
    labels: Labels | None = None
    files: Mapping[str, bytes] = field(factory=dict, repr=False)
    seen: tuple[Seen, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.task is not None and self.labels is None:
            raise ValueError("the predictions of a task cannot be interpreted without labels: give its labels")

    def all_files(self) -> dict[str, bytes]:
        """Return all files saved with the weights, by name: `files`, and the keys of the samples in `seen`."""
        return {**self.files, **seen_files(self.seen)}

    @property
    def modality(self) -> str:
        """Name of the adapter of the model's input."""
        return self.task.modality if self.task is not None else self.student.modalities[0]

    @property
    def student(self) -> StudentConfig:
        """Configuration of the encoder with its adapters, without teacher and predictors."""
        return self.model.student if isinstance(self.model, Data2VecConfig) else self.model

    def encoder_of(self, module: nn.Module) -> nn.Module:
        """Return the encoder inside a module that was built from this description, without its teacher."""
        if isinstance(self.model, Data2VecConfig):
            return module.get_submodule("student")
        return module if self.task is None else module.get_submodule("encoder")

    def build(self) -> nn.Module:
        """Build the module with initial weights."""
        if self.task is not None:
            assert self.labels is not None  # checked in __attrs_post_init__
            return self.task.build(self.student.build(), embed_dim=self.student.embed_dim, labels=self.labels)
        return self.model.build()
