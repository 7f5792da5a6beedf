"""How a foreign model becomes one of ours, and back.

A converter is the only thing that knows a foreign format; its tables live with the modality.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from attrs import frozen
from torch import Tensor

from d2v.core.files.tables import KeyTable, Tensors
from d2v.core.model import Data2Vec, Data2VecConfig

Shapes = Mapping[str, tuple[int, ...]]


@frozen
class Layout:
    """Where a file keeps its tensors.

    Args:
        table: student and prediction tensors, foreign name to ours, for our names below `Data2Vec`.
        teacher_prefix: in front of the teacher's names.
        teacher_strip: what student names begin with and teacher names do not ("encoder."): the averaged part of the model.
        student_prefix: in front of the student's names.
    """

    table: KeyTable
    teacher_prefix: str
    teacher_strip: str = ""
    student_prefix: str = ""


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
        model: with the file's weights, teacher included if the file has one.
        config: ours.
        layout: how the file names its tensors.
    """

    model: Data2Vec
    config: Data2VecConfig
    layout: Layout

    def student_names(self, tensors: Tensors) -> dict[str, Tensor]:
        """Tensors of student and predictors, under our names, by the file's names; for weights and gradients."""
        return self.layout.table.to_theirs(tensors)

    def teacher_names(self, tensors: Tensors) -> dict[str, Tensor]:
        """Tensors of the teacher by the file's names, without their prefix.

        Args:
            tensors: under our names below the teacher's module.
        """
        theirs = self.layout.table.to_theirs({f"student.{name}": tensor for name, tensor in tensors.items()})
        return {name.removeprefix(self.layout.teacher_strip): tensor for name, tensor in theirs.items()}

    def load_teacher(self, tensors: Tensors) -> None:
        """Set the teacher.

        Args:
            tensors: by the file's names without their prefix.

        Raises:
            ValueError: if tensors are missing or unexpected.
        """
        module = self.model.teacher.module
        strip, known = self.layout.teacher_strip, {n for r in self.layout.table.rules for n in r.theirs}
        named = {name if strip + name not in known else strip + name: tensor for name, tensor in tensors.items()}
        ours = self.layout.table.to_ours(named, partial=True)
        state = {name.removeprefix("student."): t for name, t in ours.items() if name.startswith("student.")}
        _load(module, state)


def convert(
    converters: Iterable[Converter], foreign: Mapping[str, Any], tensors: Tensors
) -> Converted:
    """Make a model out of a foreign configuration and the tensors of a file.

    Args:
        converters: those to try, in order.
        foreign: the model configuration.
        tensors: by the file's names.

    Raises:
        ValueError: if no converter knows the format, a field is refused, or tensors do not fit; all are named together.
    """
    converters = list(converters)
    converter = next((one for one in converters if one.accepts(foreign)), None)
    if converter is None:
        raise ValueError(f"no converter knows this configuration; tried {', '.join(one.name for one in converters)}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config = converter.config(foreign, shapes)
    layout = converter.layout(config, shapes)
    model = config.build()
    converted = Converted(model, config, layout)
    teacher = {n.removeprefix(layout.teacher_prefix): t for n, t in tensors.items() if n.startswith(layout.teacher_prefix)}
    student = {n.removeprefix(layout.student_prefix): t for n, t in tensors.items() if not n.startswith(layout.teacher_prefix)}
    _load(model, {n: t for n, t in layout.table.to_ours(student).items()}, below=("student.", "predictors.", "pixel_heads."))
    if teacher:
        converted.load_teacher(teacher)
    return converted


def _load(module: Any, state: Mapping[str, Tensor], below: tuple[str, ...] = ("",)) -> None:
    expected = {n: t for n, t in module.state_dict().items() if n.startswith(below)}
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    reshaped = [
        f"{n} {tuple(state[n].shape)} for {tuple(t.shape)}" for n, t in expected.items() if n in state and state[n].shape != t.shape
    ]
    problems = [f"{what}: {', '.join(names[:8])}" for what, names in
                (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped)) if names]
    if problems:
        raise ValueError("the tensors do not fit the model; " + "; ".join(problems))
    module.load_state_dict(dict(state), strict=False)
