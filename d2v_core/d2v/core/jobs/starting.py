"""Start a new run from the weights of another one."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from d2v.core.data import DataError
from d2v.core.files import ConfigError, Stored, to_plain
from d2v.core.jobs.models import match_input, matched
from d2v.core.model import Backbone, BackboneConfig, Data2Vec, StudentConfig
from d2v.core.recipes import PretrainRecipe
from d2v.core.state_dict import complaint, misfits, shapes_of

_logger = logging.getLogger(__name__)
# Settings that change the results of an encoder and not its shapes.
_COMPUTATION = ("num_heads", "norm", "activation")
_TRAINING_ONLY = ("init", "drop_path_rate", "first_token_zero")


def start_from(model: Data2Vec, stored: Stored, source: str, settings: PretrainRecipe) -> None:
    """Give a new model the weights of a stored one: student, teacher and, where they fit, predictors.

    Parts of the teacher that the stored model lacks start as a copy of the student. Nothing else is taken over: the
    new run has its own schedules, optimiser and masks. If the input of the run has another size than that of the stored
    model, and its adapter can be resized, it is.

    Args:
        model: to set in place.
        stored: the other model; of a fine-tuned model, its encoder is used. It is changed in place.
        source: its path, for messages.
        settings: of the new run.

    Raises:
        ConfigError: naming the keys of the model that differ, and the tensors of student and teacher that are missing
            or of another shape.
    """
    resized = _resize(stored, settings)
    other = _other_values(settings.model.student, resized)
    if changed := [text for key, text in other.items() if key.rpartition(".")[2] in _COMPUTATION]:
        _logger.warning("init=%s was trained with other settings: %s", source, ", ".join(changed))
    given, student = stored.module, stored.student.state_dict()
    teacher = given.teacher.module.state_dict() if isinstance(given, Data2Vec) else {}
    _set(model.student, student, source, "student", other)
    _set(model.teacher.module, {**student, **teacher}, source, "teacher", other)
    for part in ("predictors", "pixel_heads"):
        module, found = getattr(model, part), getattr(given, part, nn.Module()).state_dict()
        if any(misfits(shapes_of(module.state_dict()), shapes_of(found)).values()):
            _logger.warning("init=%s has no %s that fit: they start untrained", source, part.replace("_", " "))
        else:
            module.load_state_dict(found)


def _resize(stored: Stored, settings: PretrainRecipe) -> StudentConfig:
    """Fit the adapters of a stored model to the input of a run; return the configuration of its encoder."""
    config, module = stored.description.student, stored.module
    if not isinstance(config, BackboneConfig):
        return config
    encoders = [stored.student, *([module.teacher.module] if isinstance(module, Data2Vec) else [])]
    for name, data in settings.sources.items():
        try:
            resized = matched(config, data, name)
        except (DataError, KeyError):  # the shapes of the tensors decide
            continue
        if resized != config:
            config = resized
            for encoder in encoders:
                if isinstance(encoder, Backbone) and name in encoder.adapters and encoder.adapters[name] is not None:
                    match_input(data, encoder, name)
    return config


def _other_values(wanted: StudentConfig, given: StudentConfig) -> dict[str, str]:
    """Keys of the student that differ in a way which can change its shapes or its computation, with both values."""
    ours, theirs = _flat(to_plain(wanted), "model.student"), _flat(to_plain(given), "model.student")
    return {
        key: f"{key}={theirs.get(key)}, not {ours.get(key)}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
        and (not isinstance(ours.get(key), float) or key.endswith("ratio"))
        and key.rpartition(".")[2] not in _TRAINING_ONLY
    }


def _flat(values: Any, name: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {name: values}
    return {key: one for part, below in values.items() for key, one in _flat(below, f"{name}.{part}").items()}


def _set(module: nn.Module, given: dict[str, Tensor], source: str, part: str, other: Mapping[str, str]) -> None:
    wanted = module.state_dict()
    # The stored student may have more tensors than needed, for example a mask token that the new one does not have.
    problems = misfits(shapes_of(wanted), shapes_of({name: given[name] for name in wanted if name in given}))
    if any(problems.values()):
        keys = f"its settings are {', '.join(other.values())}" if other else "use the model sizes of that run"
        raise ConfigError(f"init={source} does not fit model.{part}: {complaint(problems)}; {keys}")
    module.load_state_dict({name: given[name] for name in wanted})
