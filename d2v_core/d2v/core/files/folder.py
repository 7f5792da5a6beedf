"""Model folders: `config.json` and `model.safetensors`, written whole or not at all."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from d2v.core.files.structure import ConfigError, from_plain, to_plain
from d2v.core.foreign.converter import load_state
from d2v.core.model import Data2Vec, Data2VecConfig

FORMAT = 1
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def save(folder: str | os.PathLike[str], model: Data2Vec, config: Data2VecConfig) -> None:
    """Write a model folder; a crash leaves nothing half written.

    Args:
        folder: to be made; must not exist yet.
        model: teacher and predictors are written too.
        config: what the model was built from.

    Raises:
        FileExistsError: if the folder exists.
        OSError: if it cannot be written.

    >>> from d2v.core import EMASchedule, RandomMasker, modalities
    >>> from d2v.core.model import BlockConfig, EncoderConfig, MaskedHeadConfig, TargetsConfig, TeacherConfig
    >>> config = Data2VecConfig(
    ...     encoder=EncoderConfig(block=BlockConfig(dim=8, num_heads=2), depth=1),
    ...     adapters={"text": modalities.load("text").adapter(vocabulary_size=10)},
    ...     predictors={"text": MaskedHeadConfig()},
    ...     maskers={"text": RandomMasker(mask_prob=0.5)},
    ...     targets=TargetsConfig(layers=1),
    ...     teacher=TeacherConfig(schedule=EMASchedule(0.99)),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/model", config.build(), config)
    ...     type(load(f"{folder}/model")).__name__
    'Data2Vec'
    """
    target = Path(folder)
    if target.exists():
        raise FileExistsError(f"{target} exists already; give a folder that does not")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write_files(unfinished, model, to_plain(config))
        publish(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def write_files(folder: Path, model: nn.Module, config: Any) -> None:
    """Write the files of a model folder into an unfinished one.

    Args:
        folder: exists.
        model: whose tensors.
        config: plain values; see `to_plain`.
    """
    (folder / _CONFIG).write_text(json.dumps({"format": FORMAT, "model": config}, indent=1) + "\n")
    # Tied weights share storage, which the format refuses: each name gets its own copy.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / _WEIGHTS)


def publish(unfinished: Path, target: Path) -> None:
    """Make a folder of files appear under its name, whole, after all of it is on the disk."""
    for path in (*unfinished.iterdir(), unfinished):
        _flush(path)
    unfinished.rename(target)
    _flush(target.parent)


def load(folder: str | os.PathLike[str]) -> Data2Vec:
    """The model of a folder, on the CPU; its `student` gives features.

    Raises:
        FileNotFoundError: if it is not a model folder.
        ValueError: if a file is broken or newer than this version, or the weights do not fit the configuration.

    >>> load("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: nowhere is not a model folder: config.json is missing
    """
    source = Path(folder)
    for name in (_CONFIG, _WEIGHTS):
        if not (source / name).is_file():
            raise FileNotFoundError(f"{source} is not a model folder: {name} is missing")
    config = _read_config(source / _CONFIG)
    try:
        tensors = load_file(source / _WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{source / _WEIGHTS} is broken or cut off: {error}") from error
    model = config.build()
    load_state(model, tensors)
    return model


def _read_config(path: Path) -> Data2VecConfig:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        written = values["format"]
        plain = values["model"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a configuration of d2v: {error}") from error
    if not isinstance(written, int) or written > FORMAT:
        raise ValueError(f"{path} has format {written!r}; this version reads up to {FORMAT}: update d2v")
    try:
        return from_plain(plain, Data2VecConfig)
    except ConfigError as error:
        raise ValueError(f"{path}: {error}") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
