"""Label types: small values that a task requests by their class, and that the data provides.

`Labels` are saved with the weights, to interpret a model's predictions and to number the labels of other data in the
same way. This module does not depend on tasks, modalities or the source of labels.
"""

import math
from collections.abc import Iterable
from itertools import groupby
from typing import ClassVar, Protocol

import torch
from attrs import field, frozen
from attrs.validators import min_len
from torch import Tensor

from d2v.core.model import Batch
from d2v.core.validators import distinct

__all__ = ["LABELS", "Classes", "Labels", "MultiLabel", "Number", "Symbols"]


class Labels(Protocol):
    """Type of labels with its classes, symbols or range.

    Attributes:
        what: description for messages: "a class for each sample".
    """

    what: ClassVar[str]

    @property
    def num_outputs(self) -> int:
        """Number of outputs of a model for a sample, or for each position of it."""
        ...

    def check(self, batch: Batch) -> None:
        """Check that the batch has labels of this type.

        Raises:
            ValueError: if the batch has no labels, or other ones; says what was expected.
        """
        ...


@frozen
class Classes:
    """One class for each sample; `Batch.labels` is Long `b`, the number of the class.

    Args:
        names: names of the classes, in the order of their numbers.

    Raises:
        ValueError: if there are no names, or a name is given twice.

    >>> Classes(("cat", "dog")).num_outputs
    2
    """

    what: ClassVar[str] = "a class for each sample"

    names: tuple[str, ...] = field(validator=[min_len(1), distinct])

    @property
    def num_outputs(self) -> int:
        """c, the number of classes."""
        return len(self.names)

    def check(self, batch: Batch) -> None:
        """Raise `ValueError` unless labels are Long `b` with numbers of these classes."""
        labels = _labels(batch, self.what)
        if labels.shape != (batch.size,) or labels.dtype != torch.long:
            raise _other(labels, f"Long ({batch.size},)", self.what)
        _check_range(labels, self.num_outputs, "classes")


@frozen
class MultiLabel:
    """Any number of classes for each sample; `Batch.labels` is Bool or float `b c`, 1 = the sample has the class.

    Float labels may be between 0 and 1, as for mixed samples.

    Args:
        names: names of the classes, in the order of their numbers.

    Raises:
        ValueError: if there are no names, or a name is given twice.

    >>> labels = MultiLabel(("speech", "music"))
    >>> labels.check(Batch(source=torch.zeros(1, 8), labels=torch.tensor([[True, True]])))
    """

    what: ClassVar[str] = "any number of classes for each sample"

    names: tuple[str, ...] = field(validator=[min_len(1), distinct])

    @property
    def num_outputs(self) -> int:
        """c, the number of classes."""
        return len(self.names)

    def check(self, batch: Batch) -> None:
        """Raise `ValueError` unless labels are Bool `b c`, or float `b c` from 0 to 1."""
        labels, shape = _labels(batch, self.what), (batch.size, self.num_outputs)
        if labels.shape != shape or not (labels.dtype == torch.bool or labels.is_floating_point()):
            raise _other(labels, f"Bool or float {shape}", self.what)
        if labels.is_floating_point() and not bool(((labels >= 0) & (labels <= 1)).all()):
            raise ValueError(f"labels must be {self.what}: numbers from 0 to 1, not up to {labels.abs().max():g}")


@frozen
class Symbols:
    """A sequence of symbols for each sample; `Batch.labels` is Long `b s`, of which the first `label_lengths` are used.

    Args:
        symbols: dictionary, in the order of the numbers, including blank, specials and unknown.
        blank: blank symbol of CTC; None = the task needs no blank.
        specials: symbols that do not appear in text (padding, end of sentence).
        unknown: symbol that replaces symbols outside of the dictionary; None = these are an error.
        boundary: symbol between words; None = each symbol is a word.

    Raises:
        ValueError: if the dictionary is empty, contains a symbol twice, or lacks one of the special symbols.

    >>> letters = Symbols(("<s>", "|", "A", "B"), blank="<s>", boundary="|")
    >>> letters.collapse(torch.tensor([0, 2, 2, 0, 2, 1, 3]))
    [2, 2, 1, 3]
    >>> letters.text([2, 2, 1, 3])
    'AA B'
    """

    what: ClassVar[str] = "a sequence of symbols for each sample"

    symbols: tuple[str, ...] = field(validator=[min_len(1), distinct])
    blank: str | None = field(default=None, kw_only=True)
    specials: tuple[str, ...] = field(default=(), kw_only=True)
    unknown: str | None = field(default=None, kw_only=True)
    boundary: str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for name, symbol in (("blank", self.blank), ("unknown", self.unknown), ("boundary", self.boundary)):
            if symbol is not None and symbol not in self.symbols:
                raise ValueError(f"{name}={symbol!r} is not one of the {len(self.symbols)} symbols")
        for symbol in self.specials:
            if symbol not in self.symbols:
                raise ValueError(f"specials: {symbol!r} is not one of the {len(self.symbols)} symbols")

    @property
    def num_outputs(self) -> int:
        """Size of the dictionary."""
        return len(self.symbols)

    @property
    def blank_number(self) -> int:
        """Number of the blank.

        Raises:
            ValueError: if there is no blank.
        """
        if self.blank is None:
            raise ValueError("these symbols have no blank, which CTC needs; set blank")
        return self.symbols.index(self.blank)

    def check(self, batch: Batch) -> None:
        """Raise `ValueError` unless labels are Long `b s` with lengths Long `b`, without blanks within the lengths."""
        labels, lengths = _labels(batch, self.what), batch.label_lengths
        if labels.dim() != 2 or len(labels) != batch.size or labels.dtype != torch.long:
            raise _other(labels, f"Long ({batch.size}, s)", self.what)
        if lengths is None or lengths.shape != (batch.size,) or lengths.dtype != torch.long:
            raise ValueError(f"label_lengths must be Long ({batch.size},): the number of symbols of each sample")
        if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= labels.shape[1]:
            raise ValueError(f"label_lengths must be from 0 to {labels.shape[1]}, not {lengths.tolist()}")
        counted = labels[torch.arange(labels.shape[1], device=labels.device) < lengths[:, None]]
        _check_range(counted, self.num_outputs, "symbols")
        if self.blank is not None and bool((counted == self.blank_number).any()):
            raise ValueError(f"labels contain the blank {self.blank!r}; leave it out of the sequences")

    def sequences(self, batch: Batch) -> list[list[int]]:
        """Return the numbers of each sample's symbols, without padding and specials.

        Raises:
            ValueError: as `check`.
        """
        self.check(batch)
        assert batch.labels is not None
        assert batch.label_lengths is not None
        rows = zip(batch.labels.tolist(), batch.label_lengths.tolist(), strict=True)
        left_out = {self.symbols.index(symbol) for symbol in self.specials}
        return [[number for number in row[:length] if number not in left_out] for row, length in rows]

    def numbers(self, units: Iterable[str]) -> list[int]:
        """Return the numbers of symbols.

        Raises:
            ValueError: naming a symbol that is not in the dictionary, if there is no `unknown`.

        >>> Symbols(("A", "B", "?"), unknown="?").numbers("ABBY")
        [0, 1, 1, 2]
        """
        known = {symbol: number for number, symbol in enumerate(self.symbols)}
        found = []
        for unit in units:
            if unit not in known and self.unknown is None:
                raise ValueError(
                    f"{unit!r} is not one of the {len(self.symbols)} symbols, and there is no unknown symbol"
                )
            found.append(known[unit] if unit in known else known[self.unknown])  # type: ignore[index]  # checked above
        return found

    def collapse(self, path: Tensor) -> list[int]:
        """Return the sequence of a CTC alignment `t`: repeats are merged, then blanks are removed."""
        blank = self.blank_number
        return [number for number, _ in groupby(path.tolist()) if number != blank]

    def text(self, numbers: Iterable[int]) -> str:
        """Return the words of a sequence, without blank and specials, separated by spaces."""
        left_out = {self.blank, *self.specials}
        kept = [symbol for number in numbers if (symbol := self.symbols[number]) not in left_out]
        if self.boundary is None:
            return " ".join(kept)
        return " ".join("".join(" " if symbol == self.boundary else symbol for symbol in kept).split())


@frozen
class Number:
    """A number for each sample; `Batch.labels` is float `b`.

    Args:
        low: smallest value; None = no limit.
        high: largest value; None = no limit.

    Raises:
        ValueError: if `low` is not below `high`.

    >>> Number(0.0, 5.0).num_outputs
    1
    """

    what: ClassVar[str] = "a number for each sample"

    low: float | None = None
    high: float | None = None

    def __attrs_post_init__(self) -> None:
        if not self._low < self._high:
            raise ValueError(f"low={self.low} must be below high={self.high}")

    @property
    def _low(self) -> float:
        return -math.inf if self.low is None else self.low

    @property
    def _high(self) -> float:
        return math.inf if self.high is None else self.high

    @property
    def num_outputs(self) -> int:
        """Always 1."""
        return 1

    def check(self, batch: Batch) -> None:
        """Raise `ValueError` unless labels are finite floats `b` from `low` to `high`."""
        labels = _labels(batch, self.what)
        if labels.shape != (batch.size,) or not labels.is_floating_point():
            raise _other(labels, f"float ({batch.size},)", self.what)
        wrong = labels[~(labels.isfinite() & (labels >= self._low) & (labels <= self._high))]
        if len(wrong):
            raise ValueError(f"label {wrong[0]:g} is not a finite number from {self._low} to {self._high}")


LABELS: dict[str, type] = {"classes": Classes, "multi-label": MultiLabel, "symbols": Symbols, "number": Number}
"""Label types by their names in files."""


def _labels(batch: Batch, what: str) -> Tensor:
    if batch.labels is None:
        raise ValueError(f"the batch has no labels, but the task needs {what}")
    return batch.labels


def _other(labels: Tensor, expected: str, what: str) -> ValueError:
    return ValueError(f"labels must be {expected}, {what}, not {labels.dtype} {tuple(labels.shape)}")


def _check_range(numbers: Tensor, count: int, what: str) -> None:
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        raise ValueError(f"labels from {int(numbers.min())} to {int(numbers.max())} do not fit {count} {what}")
