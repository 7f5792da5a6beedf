"""Checks for NaN and infinity in weights, features and predictions."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from torch import Tensor

_SHOWN = 5
_TRY = "try precision=fp32, and check the input for values that are not finite"


class NotFiniteError(ValueError):
    """Results of samples are not finite.

    Args:
        what: type of the results, such as "features".
        names: names of the affected samples.
        where: addition to the message, such as the layer.
    """

    def __init__(self, what: str, names: Iterable[Any], *, where: str = "") -> None:
        self.what, self.names, self.where = what, list(names), where
        super().__init__(
            f"{what} of {len(self.names)} samples are not finite (NaN or infinity){where}: {some_of(self.names)}; "
            f"{_TRY}"
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are finite.

    The sum is several times cheaper than a check of each number, and is not finite if one of them is not. The sum of
    finite numbers may overflow, so each number is checked if the sum is not finite.

    >>> import torch
    >>> is_finite(torch.tensor([1e38, 3e38])), is_finite(torch.tensor([0.0, math.nan]))
    (True, False)
    """
    if not tensor.is_floating_point():
        return True
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def check_weights(tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse weights that are not finite.

    Args:
        tensors: tensors by name.
        source: source of the weights, for the message.

    Raises:
        ValueError: naming the first of them, their number and what to check.

    >>> import torch
    >>> check_weights({"bias": torch.tensor([math.inf])}, "run")
    Traceback (most recent call last):
    ValueError: run: 1 of 1 tensors are not finite (NaN or infinity): bias; the training diverged or the file is \
damaged: use an earlier checkpoint (RUN/checkpoints/step-N), and check the run's metrics.jsonl
    """
    bad = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if bad:
        raise ValueError(
            f"{source}: {len(bad)} of {len(tensors)} tensors are not finite (NaN or infinity): {some_of(bad)}; the "
            "training diverged or the file is damaged: use an earlier checkpoint (RUN/checkpoints/step-N), and check "
            "the run's metrics.jsonl"
        )


def check_answers(answers: Iterable[Mapping[str, Any]], names: Iterable[Any]) -> None:
    """Refuse predictions with a number that is not finite.

    Args:
        answers: predictions of a task, one mapping per sample.
        names: names of the samples.

    Raises:
        NotFiniteError: naming the samples.

    >>> check_answers([{"class": "cat", "probability": math.nan}], ["a.png"])
    Traceback (most recent call last):
    d2v.core.finite.NotFiniteError: predictions of 1 samples are not finite (NaN or infinity): a.png; try \
precision=fp32, and check the input for values that are not finite
    """
    bad = [
        name
        for answer, name in zip(answers, names, strict=True)
        if any(isinstance(value, float) and not math.isfinite(value) for value in answer.values())
    ]
    if bad:
        raise NotFiniteError("predictions", bad)


def some_of(names: Iterable[Any]) -> str:
    """Return the first names, and the number of further ones.

    >>> some_of(range(7))
    '0, 1, 2, 3, 4 and 2 more'
    """
    known = [str(name) for name in names]
    more = len(known) - _SHOWN
    return ", ".join(islice(known, _SHOWN)) + (f" and {more} more" if more > 0 else "")
