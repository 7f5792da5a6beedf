"""How a foreign model becomes one of ours, and back.

A converter is the only thing that knows a foreign format; its tables live with the modality.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from attrs import field, frozen
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.foreign.limits import bounded
from d2v.core.foreign.stored import StoredTensor
from d2v.core.foreign.tables import KeyTable, Tensors
from d2v.core.foreign.torch_files import load_tensors, naming_file, read_file
from d2v.core.model import BackboneConfig, Data2Vec, Data2VecConfig, TransformerConfig
from d2v.core.state_dict import complaint, load_strictly, shapes_of

Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T")

_STUDENT, _TEACHER = "student.", "teacher."
_LARGEST_RATIO, _SMALL = 8, 1 << 28


@frozen(kw_only=True)
class Layout:
    """Where a file keeps its tensors.

    Args:
        table: learned tensors, foreign name to ours; ours are those of the module that `Description.build` makes.
        prefixes: in front of the learned tensors' names, those of wrappers among them; the first that fits is cut off.
            A name without one stands in the table as it is.
        teacher_prefixes: in front of the teacher's names; () = the format has no teacher.
        teacher_strip: what student names begin with and teacher names do not ("encoder."): the averaged part of the
            model.

    >>> layout = Layout(table=KeyTable([]), prefixes=("encoder.model.", "model."), teacher_prefixes=("ema.",))
    >>> layout.divide({"encoder.model.a": 1, "model.b": 2, "head": 3, "ema.a": 4})
    ({'a': 1, 'b': 2, 'head': 3}, {'a': 4})
    """

    table: KeyTable
    prefixes: tuple[str, ...] = ("",)
    teacher_prefixes: tuple[str, ...] = ()
    teacher_strip: str = ""

    def divide(self, tensors: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
        """Tensors of a file, or their shapes, to those of the student and those of the teacher, both without prefix.

        Raises:
            ValueError: if two names are the same without their prefixes.
        """
        student: dict[str, T] = {}
        teacher: dict[str, T] = {}
        for name, tensor in tensors.items():
            averaged = _without(name, self.teacher_prefixes)
            part, short = (student, _without(name, self.prefixes)) if averaged is None else (teacher, averaged)
            short = name if short is None else short
            if short in part:
                raise ValueError(f"the file holds {short} twice, under different prefixes")
            part[short] = tensor
        return student, teacher


def _without(name: str, prefixes: tuple[str, ...]) -> str | None:
    return next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), None)


@frozen
class Unpacked:
    """A model as a file of its format holds it.

    Args:
        foreign: what the file tells of the model.
        tensors: of the model, by name; an optimiser's are not among them.
    """

    foreign: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


class Converter(Protocol):
    """One foreign format of one modality."""

    @property
    def name(self) -> str:
        """Name for messages and listings."""
        ...

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """The model of a file; None if files of this format look otherwise.

        Args:
            contents: as `read_file` gives them.
        """
        ...

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Whether this is a model of the converter's format."""
        ...

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """What our model is: a whole one, or an encoder with the task it was fine-tuned for.

        Raises:
            ValueError: if a field is missing, or changes the computation in a way that we lack.
        """
        ...

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Where a file of this model keeps its tensors."""
        ...


@frozen
class Converted:
    """A model made of a foreign configuration and foreign tensors.

    Args:
        model: what the description builds, with the file's weights. The teacher of a pretrained one has the file's, or
            starts as a copy of the student.
        description: ours.
        layout: how the file names its tensors.
    """

    model: nn.Module = field(repr=False)
    description: Description
    layout: Layout = field(repr=False)

    def student_names(self, tensors: Tensors) -> dict[str, Tensor]:
        """Learned tensors by the file's names, without prefix; weights and gradients alike.

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
        """Set all but the teacher from tensors by the file's names, without prefix.

        Raises:
            ValueError: if tensors are missing, unexpected or of another shape.
        """
        learned = tuple(name for name in self.model.state_dict() if not name.startswith(_TEACHER))
        load_strictly(self.model, self.layout.table.to_ours(tensors), below=learned)

    def load_teacher(self, tensors: Tensors) -> None:
        """Set the teacher from tensors by the file's names, without prefix.

        Raises:
            ValueError: if tensors are missing, unexpected or of another shape.
        """
        ours = self.layout.table.to_ours(_of_student(self.layout, tensors), partial=True)
        load_strictly(self._teacher(), {name.removeprefix(_STUDENT): tensor for name, tensor in ours.items()})

    def copy_to_teacher(self) -> None:
        """Set the teacher as it is at the start of a training: a copy of the student."""
        own = self.model.state_dict()
        module = self._teacher()
        module.load_state_dict({name: own[f"student.{name}"] for name in module.state_dict()})

    def _teacher(self) -> nn.Module:
        if not isinstance(self.model, Data2Vec):
            raise ValueError(f"a {type(self.model).__name__} has no teacher")
        return self.model.teacher.module


def convert(converters: Iterable[Converter], foreign: Mapping[str, Any], tensors: Tensors) -> Converted:
    """Make a model out of a foreign configuration and the tensors of a file.

    Args:
        converters: those to try, in order.
        foreign: what the file tells of the model.
        tensors: by the file's names.

    Raises:
        ValueError: if no converter knows the format, a field is refused, or tensors do not fit; all are named together.
    """
    tried = list(converters)
    converter = next((one for one in tried if one.accepts(foreign)), None)
    if converter is None:
        raise ValueError(f"no converter knows this configuration; tried {', '.join(one.name for one in tried)}")
    converted = _planned(converter, foreign, shapes_of(tensors), sum(tensor.nbytes for tensor in tensors.values()))
    _fill(converted, tensors)
    return converted


def convert_file(converters: Iterable[Converter], path: str | os.PathLike[str]) -> Converted:
    """Make a model out of a file of `torch.save`; whether its tensors fit is known before one of them is read.

    Args:
        converters: those to try, in order.
        path: of the file.

    Raises:
        ForeignFileError: one line naming the file, if it cannot be read, nobody knows its format, a field is refused,
            or tensors do not fit.
        OSError: if it cannot be read.
    """
    tried = list(converters)
    with naming_file(path):
        contents = read_file(path)
        found = (
            (one, unpacked) for one in tried if (unpacked := one.unpack(contents)) and one.accepts(unpacked.foreign)
        )
        converter, unpacked = next(found, (None, None))
        if converter is None or unpacked is None:
            raise ValueError(f"no converter knows this file; tried {', '.join(one.name for one in tried)}")
        stored = unpacked.tensors
        shapes = {name: tensor.shape for name, tensor in stored.items()}
        converted = _planned(converter, unpacked.foreign, shapes, sum(tensor.nbytes for tensor in stored.values()))
        _fill(converted, load_tensors(path, stored))
        return converted


def _planned(converter: Converter, foreign: Mapping[str, Any], shapes: Shapes, size: int) -> Converted:
    """The model without its weights, once it is certain that tensors of these shapes fit it.

    Args:
        converter: of the format.
        foreign: what the file tells of the model.
        shapes: of the file's tensors.
        size: of all tensors in bytes, which bounds the memory of the model.
    """
    description = converter.config(foreign, shapes)
    layout = converter.layout(description, shapes)
    student, teacher = layout.divide(shapes)
    with bounded(_LARGEST_RATIO * size + _SMALL):
        converted = Converted(description.build(), description, layout)
    expected = shapes_of(converted.model.state_dict())
    learned = {name: shape for name, shape in expected.items() if not name.startswith(_TEACHER)}
    problems = layout.table.misfits(student, learned)
    if teacher and isinstance(converted.model, Data2Vec):
        averaged = shapes_of(converted.model.teacher.module.state_dict())
        wanted = {f"{_STUDENT}{name}": shape for name, shape in averaged.items()}
        for what, names in layout.table.misfits(_of_student(layout, teacher), wanted).items():
            problems[what] += [f"teacher's {name}" for name in names]
    if any(problems.values()):
        raise ValueError(f"the tensors do not fit the model; {complaint(problems)}")
    return converted


def _fill(converted: Converted, tensors: Tensors) -> None:
    student, teacher = converted.layout.divide(tensors)
    converted.load_student(student)
    if teacher:
        converted.load_teacher(teacher)
    elif isinstance(converted.model, Data2Vec):
        converted.copy_to_teacher()


def _of_student(layout: Layout, teacher: Mapping[str, T]) -> dict[str, T]:
    """The teacher's tensors under the student's names, as far as they are averages of the student's.

    A complete teacher of the original holds a prediction head too, which it never uses.
    """
    table, strip = layout.table, layout.teacher_strip
    unused = {
        name for rule in table.rules if not any(our.startswith(_STUDENT) for our in rule.ours) for name in rule.theirs
    }
    whole = {strip + n if strip + n in table.their_names else n: tensor for n, tensor in teacher.items()}
    return {name: tensor for name, tensor in whole.items() if name not in unused}


def whole_model(description: Description) -> Data2VecConfig:
    """The configuration of a model that a converter has made of a pretrained one."""
    assert isinstance(description.model, Data2VecConfig)
    return description.model


def own_parts(description: Description) -> tuple[BackboneConfig, TransformerConfig]:
    """Backbone and encoder of a model that a converter has made: always of our own classes."""
    student = description.student
    assert isinstance(student, BackboneConfig)
    assert isinstance(student.encoder, TransformerConfig)
    return student, student.encoder
