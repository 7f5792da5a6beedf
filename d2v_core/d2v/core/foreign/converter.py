"""Convert third-party models to models of this package, and back.

Only a converter knows a third-party format; its tables are in the package of its modality.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar, runtime_checkable

from attrs import field, frozen
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.foreign.limits import bounded
from d2v.core.foreign.sources import read_contents
from d2v.core.foreign.stored import StoredTensor
from d2v.core.foreign.tables import KeyTable, Tensors
from d2v.core.foreign.torch_files import load_tensors, naming_file
from d2v.core.model import BackboneConfig, Data2Vec, Data2VecConfig, TransformerConfig
from d2v.core.state_dict import complaint, load_strictly, shapes_of

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their names."""
T = TypeVar("T")

_STUDENT, _TEACHER = "student.", "teacher."
_LARGEST_RATIO, _SMALL = 8, 1 << 28


@frozen(kw_only=True)
class Layout:
    """Where a file stores its tensors.

    Args:
        table: learned tensors, from third-party names to those of the module that `Description.build` returns.
        prefixes: of the learned tensors' names, including those of wrappers; the first that matches is removed. A name
            without a prefix is looked up in the table unchanged.
        teacher_prefixes: of the teacher's names; () = the format has no teacher.
        teacher_strip: prefix of student names that teacher names lack ("encoder."): the averaged part of the model.

    >>> layout = Layout(table=KeyTable([]), prefixes=("encoder.model.", "model."), teacher_prefixes=("ema.",))
    >>> layout.divide({"encoder.model.a": 1, "model.b": 2, "head": 3, "ema.a": 4})
    ({'a': 1, 'b': 2, 'head': 3}, {'a': 4})
    """

    table: KeyTable
    prefixes: tuple[str, ...] = ("",)
    teacher_prefixes: tuple[str, ...] = ()
    teacher_strip: str = ""

    def divide(self, tensors: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
        """Divide the tensors of a file, or their shapes, into those of student and teacher, both without prefix.

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
                raise ValueError(f"the file contains {short} twice, under different prefixes")
            part[short] = tensor
        return student, teacher


def _without(name: str, prefixes: tuple[str, ...]) -> str | None:
    return next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), None)


@frozen
class Unpacked:
    """A model as stored in a file of its format.

    Args:
        foreign: the file's description of the model.
        tensors: of the model, by name; without those of an optimiser.
    """

    foreign: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


class Converter(Protocol):
    """Converter of one third-party format of one modality."""

    @property
    def name(self) -> str:
        """Name for messages and listings."""
        ...

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """The model in a file; None if the file is not of this format.

        Args:
            contents: as from `read_file`.
        """
        ...

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Whether the model is of the converter's format."""
        ...

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Description of the converted model: a whole model, or an encoder with the task it was fine-tuned for.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        ...

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Where a file of this model stores its tensors."""
        ...


@runtime_checkable
class UsesFileBeside(Protocol):
    """A converter of files that lack something which another file has, such as the configuration of an encoder."""

    def file_beside(self, foreign: Mapping[str, Any]) -> str | None:
        """Name of the other file, which is looked for in the same folder; None = nothing is missing."""
        ...

    def completed(self, foreign: Mapping[str, Any], beside: Mapping[str, Any]) -> Mapping[str, Any]:
        """The file's description of the model, with what the other file's description has."""
        ...


@frozen
class Converted:
    """A model built from a third-party configuration and third-party tensors.

    Args:
        model: the module that the description builds, with the file's weights. The teacher of a pretrained model has
            the file's weights, or else starts as a copy of the student.
        description: of the converted model.
        layout: names of the tensors in the file.
    """

    model: nn.Module = field(repr=False)
    description: Description
    layout: Layout = field(repr=False)

    def student_names(self, tensors: Tensors) -> dict[str, Tensor]:
        """Learned tensors by the file's names, without prefix; for weights and gradients.

        Args:
            tensors: by their names in `model`.
        """
        return self.layout.table.to_theirs(tensors)

    def teacher_names(self, tensors: Tensors) -> dict[str, Tensor]:
        """Tensors of the teacher by the file's names, without prefix.

        Args:
            tensors: by their names in the teacher's module.
        """
        theirs = self.layout.table.to_theirs({f"student.{name}": tensor for name, tensor in tensors.items()})
        return {name.removeprefix(self.layout.teacher_strip): tensor for name, tensor in theirs.items()}

    def load_student(self, tensors: Tensors) -> None:
        """Load everything except the teacher from tensors by the file's names, without prefix.

        Raises:
            ValueError: if tensors are missing, unexpected or of another shape.
        """
        learned = tuple(name for name in self.model.state_dict() if not name.startswith(_TEACHER))
        load_strictly(self.model, self.layout.table.to_ours(tensors), below=learned)

    def load_teacher(self, tensors: Tensors) -> None:
        """Load the teacher from tensors by the file's names, without prefix.

        Raises:
            ValueError: if tensors are missing, unexpected or of another shape.
        """
        ours = self.layout.table.to_ours(_of_student(self.layout, tensors), partial=True)
        load_strictly(self._teacher(), {name.removeprefix(_STUDENT): tensor for name, tensor in ours.items()})

    def copy_to_teacher(self) -> None:
        """Make the teacher a copy of the student, as at the start of a training."""
        own = self.model.state_dict()
        module = self._teacher()
        module.load_state_dict({name: own[f"student.{name}"] for name in module.state_dict()})

    def _teacher(self) -> nn.Module:
        if not isinstance(self.model, Data2Vec):
            raise ValueError(f"a {type(self.model).__name__} has no teacher")
        return self.model.teacher.module


def convert(converters: Iterable[Converter], foreign: Mapping[str, Any], tensors: Tensors) -> Converted:
    """Build a model from a third-party configuration and the tensors of a file.

    Args:
        converters: converters to try, in order.
        foreign: the file's description of the model.
        tensors: by the file's names.

    Raises:
        ValueError: if no converter knows the format, a field is refused, or tensors do not fit; names all of them.
    """
    tried = list(converters)
    converter = next((one for one in tried if one.accepts(foreign)), None)
    if converter is None:
        raise ValueError(f"no converter knows this configuration; tried {', '.join(one.name for one in tried)}")
    converted = _planned(converter, foreign, shapes_of(tensors), sum(tensor.nbytes for tensor in tensors.values()))
    _fill(converted, tensors)
    return converted


def convert_file(
    converters: Iterable[Converter],
    path: str | os.PathLike[str],
    *,
    pretrained: str | os.PathLike[str] | None = None,
) -> Converted:
    """Build a model from a file of `torch.save` or a folder of Hugging Face; shapes are checked before values are read.

    Args:
        converters: converters to try, in order.
        path: of the file or folder.
        pretrained: file of the pretrained model, for a fine-tuned file without the configuration of its encoder; None =
            the file that it names, in the same folder.

    Raises:
        ForeignFileError: one line naming the file, if it is broken, no converter knows its format, a field is refused,
            or tensors do not fit.
        OSError: if the file cannot be read.
    """
    tried, path = list(converters), Path(path)
    with naming_file(path):
        source, contents = read_contents(path)
        for converter in tried:
            unpacked = converter.unpack(contents)
            foreign = (
                {} if unpacked is None else _with_file_beside(converter, unpacked.foreign, path.parent, pretrained)
            )
            if unpacked is not None and converter.accepts(foreign):
                break
        else:
            raise ValueError(f"no converter knows this file; tried {', '.join(one.name for one in tried)}")
        shapes = {name: tensor.shape for name, tensor in unpacked.tensors.items()}
        size = sum(tensor.nbytes for tensor in unpacked.tensors.values())
        converted = _planned(converter, foreign, shapes, size)
        _fill(converted, load_tensors(source, unpacked.tensors))
        return converted


def _with_file_beside(
    converter: Converter,
    foreign: Mapping[str, Any],
    folder: Path,
    pretrained: str | os.PathLike[str] | None,
) -> Mapping[str, Any]:
    """A description, completed by another file if the converter needs one that is given or in the folder."""
    name = converter.file_beside(foreign) if isinstance(converter, UsesFileBeside) else None
    if not isinstance(converter, UsesFileBeside) or name is None:
        return foreign
    # The name is from the file: only its last part counts, so that nothing elsewhere is read.
    other = Path(pretrained) if pretrained is not None else folder / PurePosixPath(name).name
    if pretrained is None and not other.is_file():
        return foreign
    with naming_file(other):
        beside = converter.unpack(read_contents(other)[1])
        if beside is None:
            raise ValueError("it does not hold the configuration of the encoder")
    return converter.completed(foreign, beside.foreign)


def _planned(converter: Converter, foreign: Mapping[str, Any], shapes: Shapes, size: int) -> Converted:
    """Build the model without its weights, and check that tensors of these shapes fit.

    Args:
        converter: of the format.
        foreign: the file's description of the model.
        shapes: of the file's tensors.
        size: of all tensors in bytes, which limits the memory of the model.
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
    """The teacher's tensors by the student's names, if they are averages of the student's.

    A complete teacher of the original toolkit also has a prediction head, which it never uses.
    """
    table, strip = layout.table, layout.teacher_strip
    unused = {
        name for rule in table.rules if not any(our.startswith(_STUDENT) for our in rule.ours) for name in rule.theirs
    }
    whole = {strip + n if strip + n in table.their_names else n: tensor for n, tensor in teacher.items()}
    return {name: tensor for name, tensor in whole.items() if name not in unused}


def whole_model(description: Description) -> Data2VecConfig:
    """The configuration of a converted pretrained model."""
    assert isinstance(description.model, Data2VecConfig)
    return description.model


def own_parts(description: Description) -> tuple[BackboneConfig, TransformerConfig]:
    """Backbone and encoder of a converted model: always classes of this package."""
    student = description.student
    assert isinstance(student, BackboneConfig)
    assert isinstance(student.encoder, TransformerConfig)
    return student, student.encoder
