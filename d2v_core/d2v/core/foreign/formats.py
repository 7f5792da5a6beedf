"""What a converter of a third-party format is, and what it says about a file; forms in which models are written."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from attrs import frozen
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.foreign.stored import StoredTensor
from d2v.core.foreign.tables import KeyTable

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their names."""
T = TypeVar("T")


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
class Exported:
    """A model as a third-party folder has it.

    Args:
        config: values of its configuration.
        tensors: by name.
        files: further files by name.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    files: Mapping[str, bytes]


@runtime_checkable
class Exporter(Protocol):
    """A converter that also writes its format."""

    def files(self, description: Description) -> Mapping[str, bytes]:
        """The files of a folder that say how input is prepared, by name, as far as the description knows it."""
        ...

    def export(self, module: nn.Module, description: Description) -> Exported:
        """The model in the third-party format.

        Raises:
            ValueError: if the format has no model that computes the same.
        """
        ...


@frozen(kw_only=True)
class ExportForm:
    """A form in which `d2v convert` writes a model; a modality adds forms by name in `Modality.exports`.

    Args:
        summary: what is written, in a few words.
        write: function that writes the files of a model into an empty folder and returns the description of what it
            wrote, for example of the encoder alone. It raises a ValueError that names what the form lacks.
        requires: import names of the packages that it needs.
        extra: pip requirement that installs them.

    >>> def write(folder, module, description):
    ...     (folder / "size.txt").write_text(str(sum(one.numel() for one in module.parameters())))
    ...     return description
    >>> ExportForm(summary="the number of parameters", write=write).requires
    ()
    """

    summary: str
    write: Callable[[Path, nn.Module, Description], Description]
    requires: tuple[str, ...] = ()
    extra: str | None = None
