"""The call behind `d2v convert`."""

import os
from pathlib import Path

from attrs import frozen

from d2v.core.description import Description
from d2v.core.exports import export_folder, form_of
from d2v.core.files import open_model, save
from d2v.core.labels import Classes, MultiLabel, Number, Symbols

StrPath = str | os.PathLike[str]


@frozen(kw_only=True)
class ConvertedModel:
    """A model that was written by `convert`.

    Args:
        folder: of its files.
        description: of what was written: of the whole model, or of its encoder alone.
        parameters: number of its parameters, with the teacher's.
    """

    folder: Path
    description: Description
    parameters: int

    def text(self) -> str:
        """One line about the model."""
        described = self.description
        return f"{what_it_is(described)} of {described.modality}, {self.parameters:,} parameters, in {self.folder}"


def what_it_is(description: Description) -> str:
    """A model in a few words, such as "a CTC with 32 symbols"."""
    task, labels = description.task, description.labels
    what = "a pretrained model" if task is None else f"a {type(task).__name__}"
    if task is None and not hasattr(description.model, "teacher"):
        what = "an encoder"
    if isinstance(labels, Classes | MultiLabel | Symbols):
        what += f" with {labels.num_outputs} {'symbols' if isinstance(labels, Symbols) else 'classes'}"
    elif isinstance(labels, Number):
        what += " with one number"
    return what


def convert(source: StrPath, target: StrPath, *, to: str = "d2v", pretrained: StrPath | None = None) -> ConvertedModel:
    """Write any model that `load` reads as a folder that other programs or later versions read.

    Nothing in a file is run. A fine-tuned model keeps its task and its labels, as far as file and form have them.

    Args:
        source: a published checkpoint file, a folder of Hugging Face, a model folder, a run folder or the name of a
            published model.
        target: path of the new folder; must not exist yet.
        to: d2v = a model folder; hugging-face = a folder for the transformers package: its class with the same
            computation, which 1.0 models have, or the encoder for `d2v.hugging_face`; torch-export, onnx = the encoder
            as one graph; timm = an image encoder for the timm package; or a form of the model's modality.
        pretrained: file or name of the pretrained model, for a fine-tuned file without the configuration of its
            encoder; None = the file that it names, in the same folder.

    Raises:
        FileNotFoundError: if there is no model at `source`.
        FileExistsError: if `target` exists.
        UnknownNameError: if models of this modality have no such form.
        MissingExtraError: if the form needs packages that are missing.
        ValueError: if a file is broken, or the model cannot be written in that form.
        OSError: if `target` cannot be written.

    >>> convert("base_libri.pt", "base_libri").folder  # doctest: +SKIP
    PosixPath('base_libri')
    """
    target = Path(target)
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another folder")
    stored = open_model(source, pretrained=pretrained)
    module, description = stored.module, stored.description
    if to == "d2v":
        save(target, module, description)
    else:
        description = export_folder(target, form_of(to, description.modality), module, description)
    if description is not stored.description:
        module = stored.student
    count = sum(parameter.numel() for parameter in module.parameters())
    return ConvertedModel(folder=target, description=description, parameters=count)
