"""Contents of a third-party source: a file of `torch.save`, or a folder of Hugging Face.

Such a folder has `config.json` and the weights, `model.safetensors` or `pytorch_model.bin`.
"""

import json
from pathlib import Path
from typing import Any

from d2v.core.foreign.safetensors_files import LONGEST_JSON, read_safetensors
from d2v.core.foreign.torch_files import read_file

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
BESIDE = ("preprocessor_config.json", "vocab.json", "merges.txt")


def read_contents(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file with the weights, and the contents: tensors are not read yet.

    Those of a folder are `config`, `weights`, and `files` by name: preparation and vocabulary, if it has them.

    Raises:
        ValueError: if files are missing or broken.
        OSError: if one cannot be read.
    """
    if path.suffix == ".json":
        return path, {"config": read_json(path)}
    if not path.is_dir():
        return path, read_file(path)
    source = _weights_of(path)
    weights = read_safetensors(source) if source.suffix == ".safetensors" else read_file(source)
    files = {name: (path / name).read_bytes() for name in BESIDE if _is_short(path / name)}
    return source, {"config": read_json(path / CONFIG), "weights": weights, "files": files}


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder holds the configuration of a Hugging Face model."""
    try:
        values = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "format" not in values and ("model_type" in values or "architectures" in values)


def read_json(path: Path) -> Any:
    """The values of a JSON file, of limited size."""
    with path.open("rb") as stream:
        content = stream.read(LONGEST_JSON + 1)
    if len(content) > LONGEST_JSON:
        raise ValueError(f"{path.name} has more than {LONGEST_JSON} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error


def _weights_of(folder: Path) -> Path:
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        divided = any((folder / f"{name}.index.json").is_file() for name in WEIGHTS)
        why = "; weights in several files are not supported: save them as one" if divided else ""
        raise ValueError(f"it has neither {' nor '.join(WEIGHTS)}{why}")
    return found


def _is_short(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= LONGEST_JSON
