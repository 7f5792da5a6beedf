"""A labelled data set by its parts: what is learned from, what settings are chosen on, what figures are of."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from attrs import evolve, frozen

from d2v.core.data import DataConfig
from d2v.core.jobs.running import shown
from d2v.core.labels import Classes
from d2v.core.model import Batch
from d2v.core.probes import Features, raw_features

_T = TypeVar("_T")


@frozen(kw_only=True)
class LabelledSplits:
    """The parts of a labelled data set.

    Args:
        batches: of "train", and of "val" and "test" where there are such parts; each can be read several times.
        labels: the classes of all of them.

    >>> import torch
    >>> batches = [Batch(source=torch.zeros(2, 3), labels=torch.tensor([0, 1]))]
    >>> parts = LabelledSplits(batches={"train": batches, "test": batches}, labels=Classes(("cat", "dog")))
    >>> parts.read(lambda batches: sum(batch.size for batch in batches))
    {'train': 2, 'test': 2}
    """

    batches: Mapping[str, Iterable[Batch]]
    labels: Classes

    @classmethod
    def of(
        cls,
        data: DataConfig,
        *,
        batch_size: int,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
    ) -> "LabelledSplits":
        """Open the parts of a data set; nothing is read yet.

        Args:
            data: with classes as labels.
            batch_size: samples in a batch, at least 1.
            train: split to learn from; None = the data set's own.
            val: split to choose on; None = the data set's own, if it has one.
            test: split that figures are of, likewise.

        Raises:
            DataError: if a split is not there or the samples have no classes.
        """
        known, labels = data.splits(), data.labels(Classes)
        assert isinstance(labels, Classes)  # they were asked for
        names = {"train": train or known.train, "val": val or known.val, "test": test or known.test}
        batches = {
            part: data.build(split, batch_size=batch_size, labels=labels)
            for part, split in names.items()
            if split is not None
        }
        return cls(batches=batches, labels=labels)

    def in_memory(self) -> "LabelledSplits":
        """The same, read once and kept, for data that is read several times."""
        return evolve(self, batches={part: list(batches) for part, batches in self.batches.items()})

    def read(self, how: Callable[[Iterable[Batch]], _T], *, progress: bool = False) -> dict[str, _T]:
        """What a function makes of the batches of each part.

        Args:
            how: called once for each part.
            progress: whether to show how far it is, on standard error.
        """
        return {part: how(shown(batches, progress)) for part, batches in self.batches.items()}

    def raw(self, *, progress: bool = False) -> dict[str, Features] | None:
        """The raw input as features, see `raw_features`; None where that cannot be.

        Args:
            progress: whether to show how far it is, on standard error.
        """
        found = self.read(raw_features, progress=progress)
        known = {part: features for part, features in found.items() if features is not None}
        return known if len(known) == len(found) else None
