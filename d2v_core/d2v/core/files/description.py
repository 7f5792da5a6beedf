"""What a model folder tells of its model: enough to build it, to feed it, and to read its answers."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from torch import nn

from d2v.core.files.structure import ConfigError, from_plain, to_plain
from d2v.core.model import BackboneConfig, Data2VecConfig
from d2v.core.suggestions import nearest
from d2v.core.task import Task

FORMAT = 1
_KEYS = ("model", "data", "task", "classes")


@frozen(kw_only=True)
class Description:
    """A model in words.

    Args:
        model: a whole model (`Data2VecConfig`), or the encoder that a task was trained on.
        data: how its input was prepared: plain values of the modality's data configuration, without the path.
        task: what it was fine-tuned for; None = it is pretrained.
        classes: what the task tells apart.

    Raises:
        ValueError: if there is neither a whole model nor a task.

    >>> from d2v.core.model import BlockConfig, EncoderConfig
    >>> encoder = EncoderConfig(block=BlockConfig(embed_dim=8, num_heads=2), depth=1)
    >>> Description(model=BackboneConfig(encoder=encoder, adapters={}))
    Traceback (most recent call last):
    ValueError: an encoder alone is no model that can be used: give the task that it was trained for
    """

    model: BackboneConfig
    data: Mapping[str, Any] | None = None
    task: Task | None = None
    classes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.task is None and not isinstance(self.model, Data2VecConfig):
            raise ValueError("an encoder alone is no model that can be used: give the task that it was trained for")

    @property
    def modality(self) -> str:
        """Name of the adapter that its data goes through."""
        return self.task.modality if self.task is not None else next(iter(self.model.adapters))

    def build(self) -> nn.Module:
        """The module with initial weights."""
        if self.task is not None:
            encoder = self.model.build_backbone()
            return self.task.build(encoder, embed_dim=self.model.encoder.block.embed_dim, classes=self.classes)
        assert isinstance(self.model, Data2VecConfig)
        return self.model.build()

    def to_plain(self) -> dict[str, Any]:
        """Plain values, for JSON; what is None or empty is left out."""
        values = {"model": to_plain(self.model), "data": self.data and dict(self.data)}
        values |= {"task": self.task and to_plain(self.task), "classes": list(self.classes)}
        return {key: value for key, value in values.items() if value}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Description":
        """The same from plain values.

        Raises:
            ConfigError: if a key is unknown, missing or of a wrong type.
        """
        for key in values:
            if key not in _KEYS:
                raise ConfigError(f"unknown key {key!r}{nearest(key, _KEYS)}")
        task = values.get("task")
        return cls(
            model=from_plain(values["model"], Data2VecConfig if task is None else BackboneConfig),
            data=values.get("data"),
            task=None if task is None else from_plain(task, Task),  # type: ignore[type-abstract]  # one of its forms is made
            classes=tuple(values.get("classes", ())),
        )
