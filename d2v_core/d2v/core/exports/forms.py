"""The forms by name, and writing a folder in one of them.

Each form is a module of its own. A modality adds forms that only its models have (`Modality.exports`).
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from d2v.core.description import Description
from d2v.core.exports import hugging_face, onnx, torch_export
from d2v.core.files.atomic import publish, unfinished_folder
from d2v.core.foreign import ExportForm
from d2v.core.modality import modalities
from d2v.core.registry import MissingExtraError, UnknownNameError
from d2v.core.suggestions import nearest

_OWN: Mapping[str, ExportForm] = {
    "hugging-face": hugging_face.FORM,
    "onnx": onnx.FORM,
    "torch-export": torch_export.FORM,
}


def forms_for(modality: str) -> dict[str, ExportForm]:
    """All forms for models of a modality, by name.

    >>> "hugging-face" in forms_for("text")
    True
    """
    return {**_OWN, **(modalities.load(modality).exports if modality in modalities.names() else {})}


def form_of(name: str, modality: str) -> ExportForm:
    """The form of a name, with its packages installed.

    Raises:
        UnknownNameError: if models of the modality have no such form; lists the known ones.
        MissingExtraError: if packages are missing; one line that names them and the pip command.

    >>> form_of("huging-face", "text")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    d2v.core.registry.UnknownNameError: text models have no form 'huging-face' (known: d2v, hugging-face...
    """
    forms = forms_for(modality)
    if name not in forms:
        known = ["d2v", *sorted(forms)]
        raise UnknownNameError(
            f"{modality} models have no form {name!r} (known: {', '.join(known)}){nearest(name, known)}"
        )
    form = forms[name]
    missing = [package for package in form.requires if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"the form {name} needs {', '.join(missing)}: pip install '{form.extra}'", name=missing[0]
        )
    return form


def export_folder(target: Path, form: ExportForm, module: nn.Module, description: Description) -> Description:
    """Write a model in a form, as a new folder, atomically.

    Args:
        target: path of the folder.
        form: of the files.
        module: the model.
        description: of the model.

    Returns:
        The description of what was written.

    Raises:
        ValueError: if the form has no model that computes the same, naming what differs, or a weight is not finite.
        OSError: if it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(target.parent, target.name) as unfinished:
        written = form.write(unfinished, module, description)
        publish(unfinished, target)
    return written
