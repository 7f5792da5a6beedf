"""The form `hugging-face`: a class of the transformers package that computes the same, or else our own class.

The converter of the modality knows the package's classes. Our class is in `d2v.hugging_face`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.exports.encoder import encoder_alone
from d2v.core.files.card import CARD, model_card
from d2v.core.files.description import description_to_plain
from d2v.core.files.own_class import PREFIX, own_config
from d2v.core.finite import check_weights
from d2v.core.foreign import Exported, Exporter, ExportForm
from d2v.core.modality import modalities

_USE = (
    "from transformers import AutoModel",
    "import d2v.hugging_face  # registers the class",
    "",
    'model = AutoModel.from_pretrained("FOLDER")',
)


def write(folder: Path, module: nn.Module, description: Description) -> Description:
    """Write configuration, weights and the files of the preparation.

    Raises:
        ValueError: if no class computes the same, or a weight is not finite.
    """
    try:
        exported = _native(module, description)
    except ValueError as error:
        encoder, description = encoder_alone(module, description, f": {error}")
        tensors = {f"{PREFIX}{name}": tensor for name, tensor in encoder.state_dict().items()}
        files = description.all_files() | preparation(description)
        files[CARD] = model_card(encoder.state_dict(), description_to_plain(description), _USE).encode()
        exported = Exported(own_config(description), tensors, files)
    check_weights(exported.tensors, "the model")
    write_config(folder / "config.json", exported.config)
    for name, content in exported.files.items():
        (folder / name).write_bytes(content)
    write_tensors(folder / "model.safetensors", exported.tensors)
    return description


def preparation(description: Description) -> dict[str, bytes]:
    """The files that say how a model's input is prepared, as far as it records that."""
    one = exporter_of(description.modality)
    known = description.modality in description.data or description.files
    return dict(one.files(description)) if one is not None and known else {}


def exporter_of(modality: str) -> Exporter | None:
    """The converter that writes models of a modality for Hugging Face; None if the modality has none."""
    if modality not in modalities.names():
        return None
    return next((one for one in modalities.load(modality).converters if isinstance(one, Exporter)), None)


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """Write a configuration as JSON."""
    path.write_text(json.dumps(dict(values), indent=1) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, as programs that expect those of torch read them."""
    # Tied weights share storage, which the format refuses: each name gets its own copy.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(copies, path, metadata={"format": "pt"})


def _native(module: nn.Module, description: Description) -> Exported:
    exporter = exporter_of(description.modality)
    if exporter is None:
        raise ValueError(f"{description.modality} models have no class")
    return exporter.export(module, description)


FORM = ExportForm(summary="a folder for the transformers package", write=write)
