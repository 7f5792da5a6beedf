"""Folders of Hugging Face: written by the converter of the modality that also reads them."""

import json
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from d2v.core.description import Description
from d2v.core.files.atomic import publish
from d2v.core.finite import check_weights
from d2v.core.foreign import Exporter
from d2v.core.modality import modalities


def export_folder(target: Path, module: nn.Module, description: Description) -> None:
    """Write a folder of Hugging Face atomically.

    Raises:
        ValueError: if no class of Hugging Face computes the same, naming what differs, or a weight is not finite.
        OSError: if it cannot be written.
    """
    exporters = [one for one in modalities.load(description.modality).converters if isinstance(one, Exporter)]
    if not exporters:
        raise ValueError(f"{description.modality} models cannot be written for Hugging Face")
    exported = exporters[0].export(module, description)
    check_weights(exported.tensors, f"the model for {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (unfinished / "config.json").write_text(json.dumps(dict(exported.config), indent=1) + "\n")
        for name, content in exported.files.items():
            (unfinished / name).write_bytes(content)
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in exported.tensors.items()}
        save_file(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
        publish(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
