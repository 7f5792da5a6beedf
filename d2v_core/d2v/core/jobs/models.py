"""Models that jobs start from: read from a folder, stripped to the encoder, fed as they were trained."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

import attrs
import torch
from torch import Tensor, nn

from d2v.core.files import ConfigError, Stored, from_plain, open_model
from d2v.core.model import Backbone, BackboneConfig, Data2Vec
from d2v.core.recipes import settle
from d2v.core.recipes.recipe import Weights

_Settings = TypeVar("_Settings")


def settings_of(kind: type[_Settings], overrides: Mapping[str, Any]) -> tuple[_Settings, Stored]:
    """Settings of a job on a model, and the model; what is not said of the data is as the model was trained.

    Args:
        kind: class of the settings, with the fields `model` and `data`.
        overrides: by dotted key.

    Raises:
        ConfigError: naming every key that is unknown, missing or of a wrong type.
        FileNotFoundError: if there is no such model.
        ValueError: if the model cannot be read.
    """
    source = overrides.get("model", overrides.get("+model"))
    if not isinstance(source, str):
        raise ConfigError("missing key 'model': give a run or a model folder")
    stored = open_model(source)
    described = stored.description
    data = {"kind": described.modality} if described.data is None else dict(described.data)
    return from_plain(settle(kind, {"data": data}, overrides), kind), stored


def new_encoder(
    model: BackboneConfig,
    *,
    adapt: Callable[[BackboneConfig], BackboneConfig] = lambda config: config,
    seed: int = 0,
) -> tuple[Backbone, BackboneConfig]:
    """An untrained encoder, and its configuration.

    Args:
        model: what it is built by; may hold more, which is left out.
        adapt: changes the configuration first.
        seed: of the weights.
    """
    fields = {one.name: getattr(model, one.name) for one in attrs.fields(BackboneConfig)}
    # Nothing is dropped where nothing is masked; with masks, fine-tuning keeps the sequence.
    config = adapt(BackboneConfig(**fields | {"visible_only": False}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build_backbone(), config


def encoder_of(
    stored: Stored,
    weights: Weights,
    *,
    adapt: Callable[[BackboneConfig], BackboneConfig] = lambda config: config,
    seed: int = 0,
) -> tuple[Backbone, BackboneConfig]:
    """A new encoder with the weights of a stored model, and its configuration.

    A teacher may lack parts of the student (`EMATeacher(leave_out=...)`): the front end, positions, extra tokens, a
    whole adapter, a norm. With weights="teacher" these are the student's, all others the teacher's. In training the
    teacher starts from what the student's parts make of the input, so this encoder computes what targets are made of.

    Args:
        stored: pretrained or fine-tuned.
        weights: student, teacher, or random = initial weights.
        adapt: changes the configuration first.
        seed: of initial weights.

    Raises:
        ConfigError: if the model has no such weights.
    """
    if weights not in get_args(Weights):
        raise ConfigError(f"weights={weights!r} is not one of {', '.join(get_args(Weights))}")
    encoder, config = new_encoder(stored.description.model, adapt=adapt, seed=seed)
    if weights != "random":
        encoder.load_state_dict(_tensors(stored.module, weights))
    return encoder, config


def _tensors(module: nn.Module, weights: Weights) -> dict[str, Tensor]:
    if not isinstance(module, Data2Vec):
        if weights == "teacher":
            raise ConfigError("weights=teacher: the model is fine-tuned and has no teacher; use weights=student")
        return module.get_submodule("encoder").state_dict()
    tensors = module.student.state_dict()
    return tensors if weights == "student" else {**tensors, **module.teacher.module.state_dict()}
