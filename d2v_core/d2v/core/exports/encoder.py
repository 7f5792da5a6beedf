"""The encoder of a model, which forms without heads write."""

import warnings

import attrs
from torch import nn

from d2v.core.description import Description
from d2v.core.finite import check_weights
from d2v.core.model import Student


def encoder_alone(module: nn.Module, description: Description, why: str = "") -> tuple[Student, Description]:
    """The trained encoder of a model, and its description: without teacher, predictors and head.

    A head that is left out is mentioned in a warning.

    Args:
        module: the model.
        description: of the model.
        why: reason for leaving out the head, after a colon.

    Raises:
        ValueError: if a weight is not finite.
    """
    if description.task is not None:
        warnings.warn(
            f"only the encoder is written, not the head of the {type(description.task).__name__}{why}", stacklevel=2
        )
    encoder: Student = description.encoder_of(module)  # type: ignore[assignment]  # what was built from it
    check_weights(encoder.state_dict(), "the encoder")
    return encoder, attrs.evolve(description, model=description.student.unmasked(), task=None, labels=None)
