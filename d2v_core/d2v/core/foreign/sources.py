"""Contents of a third-party source: a file of `torch.save`, or a folder of Hugging Face.

Such a folder has `config.json` and the weights, `model.safetensors` or `pytorch_model.bin`. Large models are divided
into several files; an index with the name of the whole, `model.safetensors.index.json`, says which tensor is in which.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2v.core.foreign.safetensors_files import LONGEST_JSON, read_safetensors
from d2v.core.foreign.stored import StoredTensor
from d2v.core.foreign.torch_files import naming_file, read_file

CONFIG = "config.json"
WEIGHTS, _INDEX = ("model.safetensors", "pytorch_model.bin"), ".index.json"
BESIDE = ("preprocessor_config.json", "vocab.json", "merges.txt")


def read_contents(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file with the weights or their index, and the contents: tensors are not read yet.

    Those of a folder are `config`, `weights`, and `files` by name: preparation and vocabulary, if it has them.

    Raises:
        ValueError: if files are missing or broken.
        OSError: if one cannot be read.
    """
    if path.suffix == ".json":
        return path, {"config": read_json(path)}
    if not path.is_dir():
        return path, read_file(path)
    source, weights = read_weights(path)
    files = {name: (path / name).read_bytes() for name in BESIDE if _is_short(path / name)}
    return source, {"config": read_json(path / CONFIG), "weights": weights, "files": files}


def read_weights(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file with the weights of a folder or their index, and the tensors by name; their values are not read yet.

    Raises:
        ValueError: if the folder has no weights, a file of the index is missing or outside of the folder, or one is
            broken.
        OSError: if one cannot be read.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name, _read_one(folder / name)
        index = folder / f"{name}{_INDEX}"
        if index.is_file():
            return index, _read_divided(index)
    raise ValueError(f"it has neither {' nor '.join(WEIGHTS)}, as one file or with {_INDEX} of several")


def _read_one(path: Path) -> dict[str, Any]:
    return dict(read_safetensors(path)) if path.suffix == ".safetensors" else read_file(path)


def _read_divided(index: Path) -> dict[str, StoredTensor]:
    """Tensors of all files of an index, each with the name of its file."""
    names = read_json(index)
    names = names.get("weight_map") if isinstance(names, Mapping) else None
    if not isinstance(names, Mapping) or not all(isinstance(file, str) for file in names.values()):
        raise ValueError(f"{index.name} has no weight_map from tensors to files")
    files: dict[str, dict[str, Any]] = {}
    for file in sorted(set(names.values())):
        # Anyone may have written the index: nothing outside of the folder is read.
        if file in ("", ".", "..") or any(mark in file for mark in "/\\\0"):
            raise ValueError(f"{index.name} names {file!r}, which is not a file of the same folder")
        if not (index.parent / file).is_file():
            raise ValueError(f"{file} is missing, which {index.name} names")
        with naming_file(index.parent / file):
            files[file] = _read_one(index.parent / file)
    found: dict[str, StoredTensor] = {}
    for name, file in names.items():
        tensor = files[file].get(name)
        if not isinstance(tensor, StoredTensor):
            raise ValueError(f"{name} is not in {file}, where {index.name} has it")
        found[name] = tensor.within(index.parent / file)
    return found


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


def _is_short(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= LONGEST_JSON
