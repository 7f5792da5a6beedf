"""Converters of the original toolkit's fine-tuned models: what the tasks of all modalities have in common.

Such a file holds the encoder and a head. The configuration of the encoder's pretraining is inside that of the task; if
it is missing, the task names the pretrained file, which is then read as well.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from attrs import frozen

from d2v.core.description import Description
from d2v.core.foreign.config import ForeignConfig
from d2v.core.foreign.converter import own_parts, whole_model
from d2v.core.foreign.fairseq.checkpoint import model_section, unpack
from d2v.core.foreign.formats import Converter, Layout, Shapes, Unpacked
from d2v.core.foreign.rules import Rule
from d2v.core.foreign.tables import KeyTable
from d2v.core.labels import Labels
from d2v.core.model import BackboneConfig, Data2VecConfig
from d2v.core.task import Task

_PRETRAINING = ("w2v_args", "d2v_args", "pretrained_model_args")
_PATHS = ("w2v_path", "model_path")


class PretrainedFormat(Converter, Protocol):
    """Converter of pretrained models that can name the tensors of an encoder alone."""

    def encoder_rules(self, student: BackboneConfig, name: str) -> list[Rule]:
        """Return the key table of an encoder that is called `name` in the module."""
        ...


class TaskReader(Protocol):
    """Reads the parts of a file that are specific to a task.

    Attributes:
        name: of the task, for messages.
        body: prefix of the encoder's tensors.
        head: prefix of the other tensors.
    """

    name: str
    body: str
    head: str

    def accepts(self, model: Mapping[str, Any]) -> bool:
        """Return whether the configuration is that of the task."""
        ...

    def read(
        self, model: ForeignConfig, foreign: Mapping[str, Any], shapes: Shapes, pretrained: Data2VecConfig
    ) -> tuple[Task, Labels]:
        """Return the task and its labels.

        Args:
            model: the task's configuration.
            foreign: configuration of the run, with its dictionaries.
            shapes: of the file's tensors.
            pretrained: the model that was fine-tuned.
        """
        ...

    def encoder(self, model: ForeignConfig, config: BackboneConfig) -> BackboneConfig:
        """Return the encoder with the task's own settings, where these change its computation."""
        ...

    def data(self, foreign: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the preparation of the input that the run names; None = that of pretraining."""
        ...

    def rules(self, task: Task, shapes: Shapes) -> list[Rule]:
        """Return the key table of the head."""
        ...


@frozen
class FineTunedFormat:
    """A converter of one task on one generation of encoders.

    Args:
        pretrained: converter of the encoder.
        reader: reads the task.
    """

    pretrained: PretrainedFormat
    reader: TaskReader

    @property
    def name(self) -> str:
        """Name for messages and listings."""
        return f"{self.pretrained.name}, {self.reader.name}"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the model in a checkpoint of the toolkit."""
        return unpack(contents)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the file holds this task, on an encoder of this generation or an unknown one."""
        model = model_section(foreign)
        if not any(field in model for field in _PRETRAINING) or not self.reader.accepts(model):
            return False
        pretraining = _pretraining(model)
        return pretraining is None or self.pretrained.accepts(pretraining)

    def file_beside(self, foreign: Mapping[str, Any]) -> str | None:
        """Return the name of the pretrained file if the configuration of the encoder is missing."""
        model = model_section(foreign)
        if _pretraining(model) is not None or not any(field in model for field in _PRETRAINING):
            return None
        return _pretrained_path(model)

    def completed(self, foreign: Mapping[str, Any], beside: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the description with the configuration of the encoder from the pretrained file's."""
        return {**foreign, "model": {**model_section(foreign), _PRETRAINING[-1]: beside}}

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to an encoder with its task; the task's settings replace those of pretraining.

        Raises:
            ValueError: if the encoder's configuration or a field is missing, or a field changes the computation in an
                unsupported way.
        """
        model = ForeignConfig(model_section(foreign), "model")
        pretraining = _pretraining(model.values)
        if pretraining is None:
            raise ValueError(
                "the file lacks the configuration of its encoder; put the pretrained file "
                f"{_pretrained_path(model.values)!r} into the same folder, or name it as `pretrained`"
            )
        model.ignore(*_PRETRAINING, *_PATHS)
        own = {name.removeprefix(self.reader.body): shape for name, shape in shapes.items()}
        description = self.pretrained.config(pretraining, own)
        task, labels = self.reader.read(model, foreign, shapes, whole_model(description))
        student, _ = own_parts(description)
        student = self.reader.encoder(model, student.unmasked())
        model.finish()
        data = self.reader.data(foreign)
        return Description(
            model=task.adapt(student),
            data={task.modality: data} if data else description.data,
            task=task,
            labels=labels,
        )

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        student, _ = own_parts(description)
        assert description.task is not None
        rules = [*self.pretrained.encoder_rules(student, "encoder"), *self.reader.rules(description.task, shapes)]
        return Layout(table=KeyTable(rules), prefixes=(self.reader.body, self.reader.head))


def _pretraining(model: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The configuration of the encoder's pretraining run."""
    found = next((model[field] for field in _PRETRAINING if model.get(field) is not None), None)
    return found if isinstance(found, Mapping) else None


def _pretrained_path(model: Mapping[str, Any]) -> str | None:
    return next((model[field] for field in _PATHS if isinstance(model.get(field), str)), None)
