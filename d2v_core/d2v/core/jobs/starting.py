"""Beginning a new run from the weights of another one."""

import logging

from torch import Tensor, nn

from d2v.core.files import ConfigError, Stored, open_model
from d2v.core.model import Data2Vec
from d2v.core.state_dict import complaint, misfits, shapes_of

_logger = logging.getLogger(__name__)


def start_from(model: Data2Vec, source: str) -> Stored:
    """Give a new model the weights of a stored one: student, teacher and, where they fit, predictors.

    A teacher that the stored model lacks, or parts of it, begin as its student's. Nothing else of it is taken over:
    schedules, optimiser and masks are those of the new run.

    Args:
        model: to set in place.
        source: a run, a model folder or a published checkpoint file; a fine-tuned one gives its encoder.

    Returns:
        What was read.

    Raises:
        FileNotFoundError: if there is no such model.
        ConfigError: naming the tensors of student and teacher that are missing or of another shape.
    """
    stored = open_model(source)
    given = stored.module
    if isinstance(given, Data2Vec):
        student, teacher = given.student.state_dict(), given.teacher.module.state_dict()
    else:
        student, teacher = given.get_submodule("encoder").state_dict(), {}
    _set(model.student, student, source, "student")
    _set(model.teacher.module, {**student, **teacher}, source, "teacher")
    for part in ("predictors", "pixel_heads"):
        module, found = getattr(model, part), getattr(given, part, nn.Module()).state_dict()
        if any(misfits(shapes_of(module.state_dict()), shapes_of(found)).values()):
            _logger.warning("init=%s has no %s that fit: they begin untrained", source, part.replace("_", " "))
        else:
            module.load_state_dict(found)
    return stored


def _set(module: nn.Module, given: dict[str, Tensor], source: str, part: str) -> None:
    wanted = module.state_dict()
    # A student may have more than is asked for: a mask token, say, that the new one does not need.
    problems = misfits(shapes_of(wanted), shapes_of({name: given[name] for name in wanted if name in given}))
    if any(problems.values()):
        raise ConfigError(
            f"init={source} does not fit model.{part}: {complaint(problems)}; give the recipe the sizes of that model"
        )
    module.load_state_dict({name: given[name] for name in wanted})
