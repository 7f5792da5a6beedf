"""NaN and infinity are refused where they would be passed on: in weights, in features and in predictions."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from torch import Tensor

_SHOWN = 5
_TRY = "try precision=fp32, and look at the input for values that are not finite"


class NotFiniteError(ValueError):
    """Results of samples are not finite.

    Args:
        what: of the samples.
        names: of the samples that are concerned.
        where: behind it in the message, such as the layer.
    """

    def __init__(self, what: str, names: Iterable[Any], *, where: str = "") -> None:
        self.what, self.names, self.where = what, list(names), where
        super().__init__(
            f"{what} of {len(self.names)} samples are not finite (NaN or infinity){where}: {some_of(self.names)}; "
            f"{_TRY}"
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are finite.

    A sum is several times cheaper than asking each number, and not finite where one of them is not; it may be too large
    itself, so only then each is asked.

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
        tensors: by name.
        source: that they are of, for the message.

    Raises:
        ValueError: naming the first of them, how many they are and what to look at.

    >>> import torch
    >>> check_weights({"bias": torch.tensor([math.inf])}, "run")
    Traceback (most recent call last):
    ValueError: run: 1 of 1 tensors are not finite (NaN or infinity): bias; the training diverged or the file is \
damaged: take an earlier checkpoint (RUN/checkpoints/step-N), and look at the run's metrics.jsonl
    """
    bad = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if bad:
        raise ValueError(
            f"{source}: {len(bad)} of {len(tensors)} tensors are not finite (NaN or infinity): {some_of(bad)}; the "
            "training diverged or the file is damaged: take an earlier checkpoint (RUN/checkpoints/step-N), and look "
            "at the run's metrics.jsonl"
        )


def check_answers(answers: Iterable[Mapping[str, Any]], names: Iterable[Any]) -> None:
    """Refuse predictions with a number that is not finite.

    Args:
        answers: of the samples, as a task gives them.
        names: of the samples.

    Raises:
        NotFiniteError: naming the samples.

    >>> check_answers([{"class": "cat", "probability": math.nan}], ["a.png"])
    Traceback (most recent call last):
    d2v.core.finite.NotFiniteError: predictions of 1 samples are not finite (NaN or infinity): a.png; try \
precision=fp32, and look at the input for values that are not finite
    """
    bad = [
        name
        for answer, name in zip(answers, names, strict=True)
        if any(isinstance(value, float) and not math.isfinite(value) for value in answer.values())
    ]
    if bad:
        raise NotFiniteError("predictions", bad)


def some_of(names: Iterable[Any]) -> str:
    """The first names, and how many more there are.

    >>> some_of(range(7))
    '0, 1, 2, 3, 4 and 2 more'
    """
    known = [str(name) for name in names]
    more = len(known) - _SHOWN
    return ", ".join(islice(known, _SHOWN)) + (f" and {more} more" if more > 0 else "")
