"""Models that jobs start from: read from a folder, stripped to the encoder, fed as they were trained."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import torch
from torch import nn

from d2v.core.files import ConfigError, Stored, from_plain, open_model, to_plain
from d2v.core.model import Backbone, BackboneConfig, Data2Vec
from d2v.core.recipes import settle
from d2v.core.recipes.recipe import Weights

_Settings = TypeVar("_Settings")


def settings_of(kind: type[_Settings], overrides: Mapping[str, Any]) -> tuple[_Settings, Stored]:
    """Settings of a job on a model, and the model; what is not said of data and task is as the model was trained.

    Args:
        kind: class of the settings, with the fields `model` and `data`, and `task` if it needs a fine-tuned model.
        overrides: by dotted key.

    Raises:
        ConfigError: naming every key that is unknown, missing or of a wrong type, or if a task is needed.
        FileNotFoundError: if there is no such model.
        ValueError: if the model cannot be read.
    """
    source = overrides.get("model", overrides.get("+model"))
    if not isinstance(source, str):
        raise ConfigError("missing key 'model': give a run or a model folder")
    stored = open_model(source)
    described = stored.description
    given = {"data": {"kind": described.modality} if described.data is None else dict(described.data)}
    if "task" in (one.name for one in attrs.fields(kind)):  # type: ignore[arg-type]  # settings are attrs classes
        if described.task is None:
            raise ConfigError(
                f"{stored.folder} is pretrained, not fine-tuned: `d2v finetune` it first, or use `d2v probe`"
            )
        given["task"] = to_plain(described.task)
    return from_plain(settle(kind, given, overrides), kind), stored


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

    Args:
        stored: pretrained or fine-tuned.
        weights: student, teacher, or random = initial weights.
        adapt: changes the configuration first.
        seed: of initial weights.

    Raises:
        ConfigError: if the model has no such weights.
    """
    encoder, config = new_encoder(stored.description.model, adapt=adapt, seed=seed)
    if weights != "random":
        encoder.load_state_dict(_part(stored.module, weights).state_dict())
    return encoder, config


def _part(module: nn.Module, weights: Weights) -> nn.Module:
    if not isinstance(module, Data2Vec):
        if weights == "teacher":
            raise ConfigError("weights=teacher: the model is fine-tuned and has no teacher; use weights=student")
        found: nn.Module = module.get_submodule("encoder")
        return found
    if weights == "student":
        return module.student
    if module.teacher_start(None) != "raw":
        raise ConfigError(
            "weights=teacher: the teacher of this model lacks the front end and reads no raw input; use weights=student"
        )
    return module.teacher.module
