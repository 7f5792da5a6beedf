"""Model folders: `config.json` and `model.safetensors`, written atomically."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from safetensors.torch import save_file
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.files.atomic import publish, unfinished_folder
from d2v.core.files.card import CARD, model_card
from d2v.core.files.description import FORMAT, description_from_plain, description_to_plain
from d2v.core.files.kinds import ConfigError
from d2v.core.files.model_cache import located, pretrained_of, similar_name
from d2v.core.files.own_class import KEY, MODEL_TYPE, PREFIX, is_own_class
from d2v.core.files.published import convert_published
from d2v.core.finite import check_weights
from d2v.core.foreign import ForeignFileError, is_hugging_face, load_tensors
from d2v.core.foreign.sources import read_weights
from d2v.core.foreign.stored import StoredTensor
from d2v.core.model import BackboneConfig, Data2VecConfig
from d2v.core.state_dict import load_strictly
from d2v.core.unfilled import bounded_by_file, without_values
from d2v.core.wrappers import plain_state

_CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save(folder: str | os.PathLike[str], model: nn.Module, config: Data2VecConfig | Description) -> None:
    """Write a model folder atomically, with a model card, `README.md`.

    Args:
        folder: path of the new folder; must not exist yet.
        model: all of it is written, with teacher and predictors; names are without wrappers such as torch.compile.
        config: configuration that the model was built from; a `Description` adds its data, task and files.

    Raises:
        FileExistsError: if the folder exists.
        ValueError: if a weight is not finite.
        OSError: if it cannot be written.

    >>> from d2v.core import EMASchedule, RandomMasker, modalities
    >>> from d2v.core.model import BackboneConfig, BlockConfig, TransformerConfig
    >>> from d2v.core.model import MaskedHeadConfig, TargetsConfig, TeacherConfig
    >>> config = Data2VecConfig(
    ...     student=BackboneConfig(
    ...         encoder=TransformerConfig(block=BlockConfig(embed_dim=8, num_heads=2), depth=1),
    ...         adapters={"text": modalities.load("text").adapters["tokens"](vocabulary_size=10)},
    ...     ),
    ...     predictors={"text": MaskedHeadConfig()},
    ...     maskers={"text": RandomMasker(mask_prob=0.5)},
    ...     targets=TargetsConfig(layers=1),
    ...     teacher=TeacherConfig(schedule=EMASchedule(0.99)),
    ... )
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/model", config.build(), config)
    ...     type(open_model(f"{folder}/model").module).__name__
    'Data2Vec'
    """
    target = Path(folder)
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another folder")
    check_weights(model.state_dict(), f"the model for {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(target.parent, target.name) as unfinished:
        described = config if isinstance(config, Description) else Description(model=config)
        write_files(unfinished, plain_state(model), description_to_plain(described), described.all_files())
        publish(unfinished, target)


def write_files(
    folder: Path,
    tensors: Mapping[str, Tensor],
    description: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write the files of a model folder into an unfinished folder, with a card of what is known of the model.

    Args:
        folder: existing folder.
        tensors: parameters and buffers of the model, by their names without wrappers.
        description: plain values; see `description_to_plain`.
        files: further files of the model, by name.

    Raises:
        ValueError: if a name is that of another file of the folder, or outside of it.
    """
    further = {_checked(name): content for name, content in (files or {}).items()}
    (folder / CARD).write_text(model_card(tensors, description), encoding="utf-8")
    for name, content in further.items():
        (folder / name).write_bytes(content)
    listed = {"files": sorted(further)} if further else {}
    (folder / _CONFIG).write_text(json.dumps({"format": FORMAT, **description, **listed}, indent=1) + "\n")
    # Tied weights share storage, which the format refuses: each name gets its own copy.
    save_file({name: one.detach().cpu().clone().contiguous() for name, one in tensors.items()}, folder / WEIGHTS)


@frozen(kw_only=True)
class Stored:
    """A model that was read.

    Args:
        path: of the folder with its files, or of a third-party file.
        description: of the model.
        module: a `Data2Vec`, an encoder, or the module that a task built around an encoder; on the CPU.
    """

    path: Path
    description: Description
    module: nn.Module

    @property
    def student(self) -> nn.Module:
        """The encoder that was trained; of a pretrained model without its teacher."""
        return self.description.encoder_of(self.module)


def open_model(source: str | os.PathLike[str], *, pretrained: str | os.PathLike[str] | None = None) -> Stored:
    """Read a model: a model folder, a run folder, a published checkpoint file or a folder of Hugging Face.

    For a run folder, this is its `model/`, or its newest checkpoint if there is none yet. Nothing in a file is run.

    Args:
        source: path of one of these, files end in `.pt` or `.pth`; or the name of a published model, which is
            downloaded into the cache folder if it is not there (`d2v.core.files.published_models`).
        pretrained: the same for the pretrained model, for a fine-tuned file without the configuration of its encoder;
            None = the file that it names, in the same folder.

    Raises:
        FileNotFoundError: if there is none of these at `source`.
        DownloadError: if a published model cannot be downloaded, or has changed since.
        ValueError: if a file is broken or newer than this version, or the weights do not fit the configuration or
            are not finite.

    >>> open_model("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: nowhere is neither a model folder nor a run folder: it does not exist
    """
    source, beside = located(source), pretrained_of(source) if pretrained is None else pretrained
    if is_foreign(source):
        if source.name in (_CONFIG, WEIGHTS):
            raise FileNotFoundError(f"{source} is a file of a model folder; give the folder, {source.parent}")
        one = convert_published(source, None if beside is None else lambda: located(beside))
        check_weights(one.model.state_dict(), source)
        return Stored(path=source, description=one.description, module=one.model)
    folder = model_folder(source)
    description = read_description(folder)
    path = folder / WEIGHTS
    try:
        path, stored = stored_weights(folder)
        tensors = load_tensors(path, stored)
    except ForeignFileError:
        raise
    except Exception as error:  # the file determines what can go wrong, so any error is possible
        raise ValueError(f"{path} is broken or cut off: {error}") from error
    check_weights(tensors, path)
    known = isinstance(description.student, BackboneConfig)
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten; keep the caller's random state
        module = without_weights(folder, description, tensors) if known else description.build()
    load_strictly(module, tensors, assign=known)
    return Stored(path=folder, description=description, module=module)


def is_foreign(path: Path) -> bool:
    """Whether a path holds a third-party file or folder; if not, a folder of ours may be there."""
    return path.is_file() or (is_hugging_face(path) and not is_own_class(path))


def stored_weights(folder: Path) -> tuple[Path, Mapping[str, StoredTensor]]:
    """The file with the tensors of a folder of ours, or their index, and the tensors, which are not read yet."""
    path, stored = read_weights(folder)
    prefix = PREFIX if is_own_class(folder) else ""
    return path, {name.removeprefix(prefix): tensor for name, tensor in stored.items()}


def without_weights(folder: Path, description: Description, tensors: Mapping[str, Tensor | StoredTensor]) -> nn.Module:
    """Build a model whose weights are known; their size limits its memory."""
    try:
        with bounded_by_file(sum(tensor.nbytes for tensor in tensors.values())), without_values():
            return description.build()
    except ValueError as error:
        raise ValueError(f"{folder / _CONFIG}: {error}") from error


def read_description(folder: Path) -> Description:
    """The description in `config.json` of a model folder.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is broken or newer than this version.
    """
    path = folder / _CONFIG
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        own_class = values.get("model_type") == MODEL_TYPE
        values = values[KEY] if own_class else values
        written = values.pop("format")
        if not isinstance(written, int) or written > FORMAT:
            raise ValueError(f"{path} has format {written!r}; this version reads up to {FORMAT}: update d2v")
        names = [_checked(name) for name in values.pop("files", ())]
        if own_class:  # `save_pretrained` writes configuration and weights alone
            names = [name for name in names if (folder / name).is_file()]
        files = {name: (folder / name).read_bytes() for name in names}
        return description_from_plain(values, files)
    except FileNotFoundError:
        raise
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a configuration of d2v: {error}") from error
    except ConfigError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(name: str) -> str:
    # Folders may come from third parties: a name must not lead outside.
    if name in (_CONFIG, WEIGHTS) or not re.fullmatch(r"(?!\.)[\w. -]+", name):
        raise ValueError(f"{name!r} is not a valid name for a further file of a model folder")
    return name


def model_folder(source: Path) -> Path:
    """The model folder at a path, or that of a run folder; a folder of `d2v.hugging_face` is one too.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not source.is_dir():
        raise FileNotFoundError(
            f"{source} is neither a model folder nor a run folder: it does not exist{similar_name(source)}"
        )
    if is_own_class(source):
        return source
    steps = [
        (int(match[1]), path)
        for path in source.glob("checkpoints/step-*")
        if (match := re.fullmatch(r"step-(\d+)", path.name))
    ]
    for folder in (source, source / "model", *(path for _, path in sorted(steps, reverse=True))):
        found = [name for name in (_CONFIG, WEIGHTS) if (folder / name).is_file()]
        if len(found) == 2:
            return folder
        if found:
            missing = WEIGHTS if found == [_CONFIG] else _CONFIG
            raise FileNotFoundError(f"{folder} is not a complete model folder: {missing} is missing")
    raise FileNotFoundError(
        f"{source} is neither a model folder nor a run folder: it has no {_CONFIG}, no model/ and no checkpoint"
    )
