"""Convert third-party models to models of this package, and back.

Only a converter knows a third-party format; its tables are in the package of its modality.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from attrs import field, frozen
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.foreign.formats import Converter, Layout, Shapes, UsesFileBeside
from d2v.core.foreign.sources import read_contents
from d2v.core.foreign.stored import StoredTensor
from d2v.core.foreign.tables import Tensors
from d2v.core.foreign.torch_files import load_tensors, naming_file
from d2v.core.model import BackboneConfig, Data2Vec, Data2VecConfig, TransformerConfig
from d2v.core.state_dict import complaint, load_strictly, shapes_of
from d2v.core.unfilled import bounded_by_file, without_values

T = TypeVar("T")
_STUDENT, _TEACHER = "student.", "teacher."


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

    def load_student(self, tensors: Tensors, *, take: bool = False) -> None:
        """Load everything except the teacher from tensors by the file's names, without prefix.

        Args:
            tensors: by name.
            take: whether they become those of the model, instead of being copied; no two may share memory.

        Raises:
            ValueError: if tensors are missing, unexpected or of another shape.
        """
        learned = tuple(name for name in self.model.state_dict() if not name.startswith(_TEACHER))
        load_strictly(self.model, _owned(self.layout.table.to_ours(tensors), take), below=learned, assign=True)

    def load_teacher(self, tensors: Tensors, *, take: bool = False) -> None:
        """Load the teacher from tensors by the file's names, without prefix; arguments as in `load_student`.

        Raises:
            ValueError: if tensors are missing, unexpected or of another shape.
        """
        ours = self.layout.table.to_ours(_of_student(self.layout, tensors), partial=True)
        own = {name.removeprefix(_STUDENT): tensor for name, tensor in ours.items()}
        load_strictly(self._teacher(), _owned(own, take), assign=True)

    def copy_to_teacher(self) -> None:
        """Make the teacher a copy of the student, as at the start of a training."""
        own = self.model.state_dict()
        module = self._teacher()
        load_strictly(module, {name: own[f"student.{name}"].clone() for name in module.state_dict()}, assign=True)

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
    size = sum(tensor.nbytes for tensor in tensors.values())
    converted, problems = _planned(converter, foreign, shapes_of(tensors), size)
    refuse_misfits(problems)
    _fill(converted, tensors, take=False)
    return converted


def convert_file(
    converters: Iterable[Converter],
    path: str | os.PathLike[str],
    *,
    pretrained: str | os.PathLike[str] | Callable[[], Path] | None = None,
) -> Converted:
    """Build a model from a file of `torch.save` or a folder of Hugging Face; shapes are checked before values are read.

    Args:
        converters: converters to try, in order.
        path: of the file or folder.
        pretrained: file of the pretrained model, for a fine-tuned file without the configuration of its encoder, or a
            function that gives it and is called only then; None = the file that it names, in the same folder.

    Raises:
        ForeignFileError: one line naming the file, if it is broken, no converter knows its format, a field is refused,
            or tensors do not fit.
        OSError: if the file cannot be read.
    """
    path = Path(path)
    with naming_file(path):
        plan = plan_file(converters, path, pretrained=pretrained)
        refuse_misfits(plan.problems)
        _fill(plan.converted, load_tensors(plan.source, plan.tensors), take=True)
        return plan.converted


@frozen(kw_only=True)
class FilePlan:
    """What a third-party file holds and where its tensors belong, before any value is read.

    Args:
        source: file with the tensors.
        format: name of the converter.
        converted: the model, with parameters on the meta device.
        tensors: of the file, by its names.
        ignored: names of tensors that the converter knows and does not need.
        problems: names of other tensors that have no place, by the kind of problem; see `misfits`.
    """

    source: Path
    format: str
    converted: Converted
    tensors: Mapping[str, StoredTensor]
    ignored: Sequence[str]
    problems: Mapping[str, Sequence[str]]


def plan_file(
    converters: Iterable[Converter],
    path: Path,
    *,
    pretrained: str | os.PathLike[str] | Callable[[], Path] | None = None,
) -> FilePlan:
    """Find out what a file holds; arguments and errors as in `convert_file`, except that tensors need not fit."""
    tried = list(converters)
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
        # Tensors may share bytes, so their sizes together say nothing about the file.
        size = sum(extent.size for extent in {tensor.storage.extent for tensor in unpacked.tensors.values()})
        converted, problems = _planned(converter, foreign, shapes, size)
        return FilePlan(
            source=source,
            format=converter.name,
            converted=converted,
            tensors=unpacked.tensors,
            ignored=_ignored(converted.layout, unpacked.tensors),
            problems=problems,
        )


def refuse_misfits(problems: Mapping[str, Collection[str]]) -> None:
    """Raise if tensors do not fit.

    Raises:
        ValueError: naming the tensors.
    """
    if any(problems.values()):
        raise ValueError(f"the tensors do not fit the model; {complaint(problems)}")


def _ignored(layout: Layout, tensors: Mapping[str, T]) -> list[str]:
    """Names of tensors whose rules take nothing from them."""
    unneeded = {name for rule in layout.table.rules if not rule.ours for name in rule.theirs}
    student, teacher = layout.divide({name: name for name in tensors})
    used = _of_student(layout, teacher).values()
    return [*(name for short, name in student.items() if short in unneeded), *sorted({*teacher.values()} - {*used})]


def _with_file_beside(
    converter: Converter,
    foreign: Mapping[str, Any],
    folder: Path,
    pretrained: str | os.PathLike[str] | Callable[[], Path] | None,
) -> Mapping[str, Any]:
    """A description, completed by another file if the converter needs one that is given or in the folder."""
    name = converter.file_beside(foreign) if isinstance(converter, UsesFileBeside) else None
    if not isinstance(converter, UsesFileBeside) or name is None:
        return foreign
    # The name is from the file: only its last part counts, so that nothing elsewhere is read.
    given = pretrained() if callable(pretrained) else pretrained
    other = Path(given) if given is not None else folder / PurePosixPath(name).name
    if given is None and not other.is_file():
        return foreign
    with naming_file(other):
        beside = converter.unpack(read_contents(other)[1])
        if beside is None:
            raise ValueError("it does not hold the configuration of the encoder")
    return converter.completed(foreign, beside.foreign)


def _planned(
    converter: Converter, foreign: Mapping[str, Any], shapes: Shapes, size: int
) -> tuple[Converted, dict[str, list[str]]]:
    """Build the model without its weights; return it with the names of tensors of these shapes that do not fit.

    Args:
        converter: of the format.
        foreign: the file's description of the model.
        shapes: of the file's tensors.
        size: of all tensors in bytes, which limits the memory of the model.
    """
    description = converter.config(foreign, shapes)
    layout = converter.layout(description, shapes)
    student, teacher = layout.divide(shapes)
    with bounded_by_file(size), without_values():
        converted = Converted(description.build(), description, layout)
    expected = shapes_of(converted.model.state_dict())
    learned = {name: shape for name, shape in expected.items() if not name.startswith(_TEACHER)}
    problems = layout.table.misfits(student, learned)
    if teacher and isinstance(converted.model, Data2Vec):
        averaged = shapes_of(converted.model.teacher.module.state_dict())
        wanted = {f"{_STUDENT}{name}": shape for name, shape in averaged.items()}
        for what, names in layout.table.misfits(_of_student(layout, teacher), wanted).items():
            problems[what] += [f"teacher's {name}" for name in names]
    return converted, problems


def _fill(converted: Converted, tensors: Tensors, *, take: bool) -> None:
    student, teacher = converted.layout.divide(tensors)
    converted.load_student(student, take=take)
    if teacher:
        converted.load_teacher(teacher, take=take)
    elif isinstance(converted.model, Data2Vec):
        converted.copy_to_teacher()


def _owned(tensors: Tensors, take: bool) -> dict[str, Tensor]:
    """Tensors that may become those of a model: copies, or those that were taken and fill their memory."""

    def alone(tensor: Tensor) -> bool:
        return take and tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes

    return {name: tensor if alone(tensor) else tensor.contiguous().clone() for name, tensor in tensors.items()}


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
