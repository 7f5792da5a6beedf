"""Texts by split, with their labels, and what of the data is not used."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import field, frozen
from torch import Tensor

from d2v.core.data import Contents, DataError, Splits, name_keys
from d2v.core.data.folders.layout import split_name, splits_by_use
from d2v.core.suggestions import nearest


@frozen(kw_only=True, eq=False)
class Texts:
    """Texts of a split; an id is the index in its list.

    Args:
        texts: the texts, or the first ones of pairs, without white space around them.
        pairs: second texts; None = there are no pairs.
        given: labels as they are in the file; None = there are none.
        places: file and line of each text.
    """

    texts: list[str] = field(factory=list, repr=False)
    pairs: list[str] | None = field(default=None, repr=False)
    given: list[str] | None = field(default=None, repr=False)
    places: list[tuple[str, int]] = field(factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, id: int) -> str:
        """File and line."""
        file, line = self.places[id]
        return f"{Path(file).name}:{line}"

    def keys(self) -> Tensor:
        """`name_keys` of the texts: the same text is the same sample wherever it stands."""
        if self.pairs is None:
            return name_keys(_without_surrogates(text) for text in self.texts)
        return name_keys(_without_surrogates(f"{a}\0{b}") for a, b in zip(self.texts, self.pairs, strict=True))

    def labels(self) -> Tensor | None:
        """Class numbers of all texts; None = labels are numbers, or there are none."""
        if self.given is None or are_numbers(self.given):
            return None
        numbers = {name: number for number, name in enumerate(sorted(set(self.given)))}
        return torch.tensor([numbers[name] for name in self.given])

    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted(set(self.given or ())))


def are_numbers(labels: list[str]) -> bool:
    """Whether labels are numbers to predict and not names of classes, for the summary and for holding out.

    They are if all are numbers, and some are not whole or most of them occur once. Training asks the task, not this.

    >>> are_numbers(["1", "2", "1"]), are_numbers(["1.5", "2"]), are_numbers(["a", "1.5"])
    (False, True, False)
    """
    counts = Counter(labels)
    try:
        values = [float(one) for one in counts]
    except ValueError:
        return False
    return any(not value.is_integer() for value in values) or 2 * list(counts.values()).count(1) > len(counts)


@frozen(kw_only=True, eq=False)
class TextSet:
    """Texts by split.

    Args:
        path: as the user gave it.
        parts: by split.
        has_splits: whether the user's data has splits.
        glue: whether the splits are those of GLUE.
        facts: about the columns, for the summary.
        unused: names of files and columns that are not used, by kind.
        notes: remarks for the user.
    """

    path: str
    parts: Mapping[str, Texts]
    has_splits: bool
    glue: bool = False
    facts: tuple[str, ...] = ()
    unused: Mapping[str, tuple[str, ...]] = field(factory=dict)
    notes: tuple[str, ...] = ()

    def splits(self) -> Splits:
        """The splits by their use; a split without labels has no use if another one has labels.

        Results of GLUE are reported on the split that checkpoints are chosen on, since its tests have no labels.
        """
        labelled = [name for name, part in self.parts.items() if part.given is not None]
        if self.glue:
            val = next((name for name in ("dev", "dev_matched", "dev_mismatched") if name in self.parts), None)
            return Splits(train="train", val=val)
        return splits_by_use(labelled or self.parts)

    def open(self, split: str | None) -> Texts:
        """The texts of a split; None = of all splits.

        Raises:
            DataError: if the split does not exist or has no texts.
        """
        parts = list(self.parts.values()) if split is None else [self.parts[self._name(split)]]
        found = parts[0] if len(parts) == 1 else _joined(parts)
        if not len(found):
            raise DataError(f"data.path={self.path!r} has no texts" + (f" in the split {split}" if split else ""))
        return found

    def contents(self) -> Contents:
        """Describe the texts; raises `DataError` if there are none."""
        if not any(map(len, self.parts.values())):
            raise DataError(f"data.path={self.path!r} has no texts: its files are empty")
        train = self.parts.get(self.splits().train) or next(iter(self.parts.values()))
        facts, classes = self.facts, train.classes()
        if train.given is not None and are_numbers(train.given):
            numbers = [float(one) for one in train.given]
            facts, classes = (*facts, f"numbers from {min(numbers):g} to {max(numbers):g}"), ()
        notes = list(self.notes)
        for name, part in self.parts.items():
            if train.given is not None and part.given is None:
                notes.append(f"{name} has no labels")
            if count := part.texts.count(""):
                notes.append(f"{name} has {count} empty texts")
        return Contents(
            path=self.path,
            splits={name: len(part) for name, part in self.parts.items()},
            classes=classes,
            facts=facts,
            unused=dict(self.unused),
            notes=tuple(notes),
            unit="texts",
        )

    def _name(self, split: str) -> str:
        alike = [name for name in self.parts if split_name(split) is not None and split_name(name) == split_name(split)]
        if split in self.parts or alike:
            return split if split in self.parts else alike[0]
        have = ", ".join(self.parts)
        why = "" if self.has_splits else "; a folder of train, val and test files or a column split has splits"
        raise DataError(
            f"data.path={self.path!r} has no split {split!r}; it has {have}{nearest(split, self.parts)}{why}"
        )


def _joined(parts: list[Texts]) -> Texts:
    """All texts; without labels if some have none."""
    every = [part for part in parts if len(part)]
    labelled = all(part.given is not None for part in every)
    paired = all(part.pairs is not None for part in every)
    return Texts(
        texts=[one for part in every for one in part.texts],
        pairs=[one for part in every for one in part.pairs or ()] if paired else None,
        given=[one for part in every for one in part.given or ()] if labelled else None,
        places=[one for part in every for one in part.places],
    )


def _without_surrogates(text: str) -> str:
    """JSON may hold lone surrogates, which have no bytes; tokenizing names them."""
    return text.encode(errors="replace").decode() if not text.isascii() else text
