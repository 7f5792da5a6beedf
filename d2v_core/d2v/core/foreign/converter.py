"""How a foreign model becomes one of ours, and back.

A converter is the only thing that knows a foreign format; its tables live with the modality.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from attrs import frozen
from torch import Tensor

from d2v.core.foreign.tables import KeyTable, Tensors
from d2v.core.model import BackboneConfig, Data2Vec, Data2VecConfig, TransformerConfig
from d2v.core.state_dict import load_strictly

Shapes = Mapping[str, tuple[int, ...]]

_LEARNED = ("student.", "predictors.", "pixel_heads.")


@frozen
class Layout:
    """Where a file keeps its tensors.

    Args:
        table: student and prediction tensors, foreign name to ours, for our names below `Data2Vec`.
        teacher_prefix: in front of the teacher's names.
        teacher_strip: what student names begin with and teacher names do not ("encoder."): the averaged part of the
            model.
        student_prefix: in front of the student's names.
    """

    table: KeyTable
    teacher_prefix: str
    teacher_strip: str = ""
    student_prefix: str = ""

    def divide(self, tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Tensors of a file to those of the student and those of the teacher, both without prefix."""
        teacher = {name: tensor for name, tensor in tensors.items() if name.startswith(self.teacher_prefix)}
        return (
            {n.removeprefix(self.student_prefix): tensor for n, tensor in tensors.items() if n not in teacher},
            {n.removeprefix(self.teacher_prefix): tensor for n, tensor in teacher.items()},
        )


class Converter(Protocol):
    """One foreign format of one modality."""

    @property
    def name(self) -> str:
        """Name for messages and listings."""
        ...

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Whether this model configuration is of the converter's format."""
        ...

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Data2VecConfig:
        """Our configuration.

        Raises:
            ValueError: if a field is missing, or changes the computation in a way that we lack.
        """
        ...

    def layout(self, config: Data2VecConfig, shapes: Shapes) -> Layout:
        """Where a file of this model keeps its tensors."""
        ...


@frozen
class Converted:
    """A model made of a foreign configuration and foreign tensors.

    Args:
        model: with the file's weights; its teacher has the file's, or starts as a copy of the student.
        config: ours.
        layout: how the file names its tensors.
    """

    model: Data2Vec
    config: Data2VecConfig
    layout: Layout

    def student_names(self, tensors: Tensors) -> dict[str, Tensor]:
        """Tensors of student and predictors by the file's names, without prefix; weights and gradients alike.

        Args:
            tensors: under their names in `model`.
        """
        return self.layout.table.to_theirs(tensors)

    def teacher_names(self, tensors: Tensors) -> dict[str, Tensor]:
        """Tensors of the teacher by the file's names, without prefix.

        Args:
            tensors: under their names in the teacher's module.
        """
        theirs = self.layout.table.to_theirs({f"student.{name}": tensor for name, tensor in tensors.items()})
        return {name.removeprefix(self.layout.teacher_strip): tensor for name, tensor in theirs.items()}

    def load_student(self, tensors: Tensors) -> None:
        """Set student and predictors from tensors by the file's names, without prefix.

        Raises:
            ValueError: if tensors are missing, unexpected or of another shape.
        """
        load_strictly(self.model, self.layout.table.to_ours(tensors), below=_LEARNED)

    def load_teacher(self, tensors: Tensors) -> None:
        """Set the teacher from tensors by the file's names, without prefix.

        Raises:
            ValueError: if tensors are missing, unexpected or of another shape.
        """
        known, strip = self.layout.table.their_names, self.layout.teacher_strip
        whole = {strip + name if strip + name in known else name: tensor for name, tensor in tensors.items()}
        ours = self.layout.table.to_ours(whole, partial=True)
        # A complete teacher of the original holds a prediction head too, which it never uses.
        state = {name.removeprefix("student."): t for name, t in ours.items() if name.startswith("student.")}
        load_strictly(self.model.teacher.module, state)


def convert(converters: Iterable[Converter], foreign: Mapping[str, Any], tensors: Tensors) -> Converted:
    """Make a model out of a foreign configuration and the tensors of a file.

    Args:
        converters: those to try, in order.
        foreign: the model configuration.
        tensors: by the file's names.

    Raises:
        ValueError: if no converter knows the format, a field is refused, or tensors do not fit; all are named together.
    """
    tried = list(converters)
    converter = next((one for one in tried if one.accepts(foreign)), None)
    if converter is None:
        raise ValueError(f"no converter knows this configuration; tried {', '.join(one.name for one in tried)}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config = converter.config(foreign, shapes)
    layout = converter.layout(config, shapes)
    converted = Converted(config.build(), config, layout)
    student, teacher = layout.divide(tensors)
    converted.load_student(student)
    if teacher:
        converted.load_teacher(teacher)
    else:  # as at the start of a training: the teacher was copied before the student had its weights
        own, module = converted.model.student.state_dict(), converted.model.teacher.module
        module.load_state_dict({name: own[name] for name in module.state_dict()})
    return converted


def own_parts(config: Data2VecConfig) -> tuple[BackboneConfig, TransformerConfig]:
    """Backbone and encoder of a configuration that a converter has made: always of our own classes."""
    student = config.student
    assert isinstance(student, BackboneConfig)
    assert isinstance(student.encoder, TransformerConfig)
    return student, student.encoder
