"""Start a new run from the weights of another one."""

import logging

from torch import Tensor, nn

from d2v.core.files import ConfigError, Stored
from d2v.core.model import Data2Vec
from d2v.core.state_dict import complaint, misfits, shapes_of

_logger = logging.getLogger(__name__)


def start_from(model: Data2Vec, stored: Stored, source: str) -> None:
    """Give a new model the weights of a stored one: student, teacher and, where they fit, predictors.

    Parts of the teacher that the stored model lacks start as a copy of the student. Nothing else is taken over: the
    new run has its own schedules, optimiser and masks.

    Args:
        model: to set in place.
        stored: the other model; of a fine-tuned model, its encoder is used.
        source: its path, for messages.

    Raises:
        ConfigError: naming the tensors of student and teacher that are missing or of another shape.
    """
    given, student = stored.module, stored.student.state_dict()
    teacher = given.teacher.module.state_dict() if isinstance(given, Data2Vec) else {}
    _set(model.student, student, source, "student")
    _set(model.teacher.module, {**student, **teacher}, source, "teacher")
    for part in ("predictors", "pixel_heads"):
        module, found = getattr(model, part), getattr(given, part, nn.Module()).state_dict()
        if any(misfits(shapes_of(module.state_dict()), shapes_of(found)).values()):
            _logger.warning("init=%s has no %s that fit: they start untrained", source, part.replace("_", " "))
        else:
            module.load_state_dict(found)


def _set(module: nn.Module, given: dict[str, Tensor], source: str, part: str) -> None:
    wanted = module.state_dict()
    # The stored student may have more tensors than needed, for example a mask token that the new one does not have.
    problems = misfits(shapes_of(wanted), shapes_of({name: given[name] for name in wanted if name in given}))
    if any(problems.values()):
        raise ConfigError(
            f"init={source} does not fit model.{part}: {complaint(problems)}; use the model sizes of that run"
        )
    module.load_state_dict({name: given[name] for name in wanted})
