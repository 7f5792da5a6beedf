"""Models that jobs start from: opened from a folder, reduced to the encoder, given input prepared as in training."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

import attrs
import torch
from torch import Tensor, nn

from d2v.core.data import DataConfig
from d2v.core.data.config import with_adapter, with_files
from d2v.core.description import Description
from d2v.core.files import ConfigError, Stored, from_plain, open_model, to_plain
from d2v.core.files.kinds import role_of
from d2v.core.jobs.device import use_threads
from d2v.core.modality import modalities
from d2v.core.model import BackboneConfig, Data2Vec, ModalityAdapter, Student, StudentConfig
from d2v.core.paths import expanded
from d2v.core.recipes import resolve
from d2v.core.recipes.recipe import Weights
from d2v.core.task import Task
from d2v.core.unfilled import without_values

_Settings = TypeVar("_Settings")


def settings_of(kind: type[_Settings], overrides: Mapping[str, Any]) -> tuple[_Settings, Stored]:
    """Settings of a job on a model, and the model. Keys of data and task default to those of the training.

    Args:
        kind: class of the settings, with the fields `model` and `data`, and `task` if it needs a fine-tuned model.
        overrides: by dotted key.

    Raises:
        ConfigError: naming every key that is unknown, missing or of a wrong type, or if the model is not fine-tuned
            and a task is needed.
        FileNotFoundError: if there is no model at the path.
        ValueError: if the model cannot be read.
    """
    stored = stored_of(overrides)
    return settings_for(kind, stored, overrides), stored


def stored_of(overrides: Mapping[str, Any]) -> Stored:
    """The model that the key `model` names; errors as in `settings_of`."""
    source = overrides.get("model", overrides.get("+model"))
    if not isinstance(source, str | os.PathLike):
        raise ConfigError("missing key 'model': give a run, a file or a name from `d2v models`")
    return open_model(expanded(source))


def settings_for(kind: type[_Settings], stored: Stored, overrides: Mapping[str, Any]) -> _Settings:
    """Settings of a job on a model that is open already; arguments and errors as in `settings_of`."""
    settings: Any = from_plain(resolve(kind, trained_values(kind, stored, overrides.get("data.kind")), overrides), kind)
    check_preparation(settings.data, stored.description)
    settings = attrs.evolve(settings, data=data_for(settings.data, stored.description))
    use_threads(getattr(settings, "threads", None))
    made: _Settings = settings
    return made


def data_for(data: DataConfig, description: Description) -> DataConfig:
    """A data configuration with what it needs of a model: its files, and the limits of its adapter."""
    student = description.student
    adapters = student.adapters if isinstance(student, BackboneConfig) else {}
    return with_adapter(with_files(data, description.files), adapters.get(description.modality))


def trained_values(kind: type, stored: Stored, asked: Any = None) -> dict[str, Any]:
    """Plain values of data and task from the training of a model, the defaults of a job's settings.

    Args:
        kind: class of the settings.
        stored: the model.
        asked: kind of data that was asked for; None = for a pretrained model that of `Modality.samples`, if there is
            one, else that of the training.

    Raises:
        ConfigError: if the settings have a task, and the model is not fine-tuned.
    """
    described = stored.description
    given: dict[str, Any] = {"data": dict(described.data.get(described.modality, {"kind": described.modality}))}
    samples = modalities.load(described.modality).samples if described.modality in modalities.names() else None
    if described.task is None and samples is not None and not _same_kind(asked, given["data"].get("kind")):
        given["data"] = inherited(described, {"kind": f"{described.modality}/{samples}"})
    if "task" in (one.name for one in attrs.fields(kind)):
        given["task"] = to_plain(task_of(stored))
    return given


def _same_kind(asked: Any, trained: Any) -> bool:
    """Whether two names of kinds of data name the same class."""
    role = role_of(DataConfig)
    assert role is not None
    return isinstance(asked, str) and role.find(asked) is role.find(trained)


def inherited(description: Description, data: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a data configuration, with defaults from the model's own preparation.

    Args:
        description: of the model.
        data: plain values; without a kind, they are of the model's first modality.
    """
    values = dict(data)
    kind = values.setdefault("kind", description.modality)
    role = role_of(DataConfig)
    assert role is not None
    known: DataConfig = role.find(kind)  # type: ignore[assignment]  # its class
    stored = description.data.get(description.modality, {})
    return {name: stored[name] for name in known.inherited if name in stored} | values


def check_preparation(data: DataConfig, description: Description) -> None:
    """Refuse input that is prepared differently from the model's training input.

    Raises:
        ConfigError: naming each key that differs.
    """
    stored = description.data.get(description.modality)
    if stored is None:
        return
    trained: DataConfig = from_plain({**stored, "path": data.path}, DataConfig)  # type: ignore[type-abstract]  # one of its forms is made
    wanted, given = trained.preparation(), data.preparation()
    other = [key for key, value in wanted.items() if given.get(key, value) != value]
    if other:
        differing = [f"data.{key}={given[key]} ({wanted[key]})" for key in other]
        raise ConfigError(
            f"{', '.join(differing)}: the model was trained on input prepared as in brackets; leave the key out"
        )


def new_encoder(
    student: StudentConfig,
    *,
    adapt: Callable[[StudentConfig], StudentConfig] = lambda config: config,
    seed: int = 0,
) -> tuple[Student, StudentConfig]:
    """An untrained encoder and its configuration.

    Args:
        student: configuration to build.
        adapt: changes the configuration first.
        seed: of the initial weights.
    """
    config = adapt(student.unmasked())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build(), config


def require_weights(stored: Stored, weights: Weights) -> None:
    """Refuse weights that a model does not have, before any of them are copied.

    Raises:
        ConfigError: naming what it has.
    """
    if weights not in get_args(Weights):
        raise ConfigError(f"weights={weights!r} is not one of {', '.join(get_args(Weights))}")
    if weights == "teacher" and not isinstance(stored.module, Data2Vec):
        kind = "an encoder" if stored.description.task is None else "fine-tuned"
        raise ConfigError(f"weights=teacher: the model is {kind} and has no teacher; use weights=student")


def encoder_of(
    stored: Stored,
    weights: Weights,
    *,
    adapt: Callable[[StudentConfig], StudentConfig] = lambda config: config,
    seed: int = 0,
) -> tuple[Student, StudentConfig]:
    """A new encoder with the weights of a stored model, and its configuration.

    A teacher may lack parts of the student (`EMATeacher(leave_out=...)`): the front end, positions, extra tokens, a
    whole adapter, a norm. With weights="teacher" these parts are the student's and all others the teacher's. In
    training, the teacher takes the output of the student's parts as input, so this encoder computes the features that
    targets are made of. The exception is parts that the teacher holds but its training does not use (positions of
    data2vec 1.0 image models of the original toolkit).

    Args:
        stored: pretrained or fine-tuned model.
        weights: student, teacher, or untrained = the same network with initial weights.
        adapt: changes the configuration first.
        seed: of initial weights.

    Raises:
        ConfigError: if the model does not have these weights.
    """
    require_weights(stored, weights)
    if weights == "untrained":
        return new_encoder(stored.description.student, adapt=adapt, seed=seed)
    tensors = _tensors(stored, weights)
    if not isinstance(stored.description.student, BackboneConfig):
        encoder, config = new_encoder(stored.description.student, adapt=adapt, seed=seed)
        encoder.load_state_dict(tensors)
        return encoder, config
    with without_values():
        encoder, config = new_encoder(stored.description.student, adapt=adapt, seed=seed)
    encoder.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    return encoder, config


def _tensors(stored: Stored, weights: Weights) -> dict[str, Tensor]:
    tensors = stored.student.state_dict()
    if weights == "student":
        return tensors
    assert isinstance(stored.module, Data2Vec)  # as required
    return {**tensors, **stored.module.teacher.module.state_dict()}


def task_of(stored: Stored) -> Task:
    """The task that a model was fine-tuned for.

    Raises:
        ConfigError: if the model is only pretrained.
    """
    if stored.description.task is None:
        raise ConfigError(f"{stored.path} is pretrained, not fine-tuned: `d2v finetune` it first, or use `d2v probe`")
    return stored.description.task


def match_input(data: DataConfig, encoder: nn.Module, modality: str) -> None:
    """Adjust an encoder to the input of the data; an encoder without adapters handles this itself.

    Raises:
        DataError: naming the field that does not fit.
    """
    adapter: Callable[[str], ModalityAdapter] | None = getattr(encoder, "adapter", None)
    if adapter is not None:
        data.match(adapter(modality))


def matched(config: StudentConfig, data: DataConfig, modality: str) -> StudentConfig:
    """The configuration of an encoder after `match_input`.

    Raises:
        DataError: as there.
    """
    if not isinstance(config, BackboneConfig):
        return config
    return attrs.evolve(config, adapters={**config.adapters, modality: data.matching(config.adapters[modality])})
