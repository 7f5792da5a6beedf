"""The splits of a labelled data set: for training, for choosing settings and for the reported results."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from attrs import evolve, field, frozen

from d2v.core.data import DataConfig
from d2v.core.jobs.running import with_progress
from d2v.core.labels import Classes, Labels
from d2v.core.model import Batch
from d2v.core.probes import Features, raw_features

_T = TypeVar("_T")


@frozen(kw_only=True)
class LabelledSplits:
    """Splits of a labelled data set.

    Args:
        batches: of "train", and of "val" and "test" where these splits exist; each can be read several times.
        labels: the labels of all splits, such as their classes.
        names: names of these splits in the data set.

    >>> import torch
    >>> batches = [Batch(source=torch.zeros(2, 3), labels=torch.tensor([0, 1]))]
    >>> parts = LabelledSplits(batches={"train": batches, "test": batches}, labels=Classes(("cat", "dog")))
    >>> parts.read(lambda batches: sum(batch.size for batch in batches))
    {'train': 2, 'test': 2}
    """

    batches: Mapping[str, Iterable[Batch]]
    labels: Labels
    names: Mapping[str, str] = field(factory=dict)

    @classmethod
    def of(
        cls,
        data: DataConfig,
        *,
        batch_size: int,
        labels: Labels | None = None,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> "LabelledSplits":
        """Open the splits of a data set without reading samples.

        Args:
            data: with labels.
            batch_size: samples in a batch, at least 1.
            labels: labels that samples must have; None = the classes of the data.
            train: split to train probes on; None = the data set's training split.
            val: split to choose settings on; None = the data set's validation split, if it has one.
            test: split for the reported results; None = the data set's test split, if it has one.
            rank: rank of this process.
            world_size: number of processes that share each split.

        Raises:
            DataError: if a split does not exist or the samples have no such labels.
        """
        known, labels = data.splits(), data.labels(Classes) if labels is None else labels
        given = {"train": train or known.train, "val": val or known.val, "test": test or known.test}
        names = {part: split for part, split in given.items() if split is not None}
        batches = {
            part: data.build(split, batch_size=batch_size, labels=labels, rank=rank, world_size=world_size)
            for part, split in names.items()
        }
        return cls(batches=batches, labels=labels, names=names)

    def in_memory(self) -> "LabelledSplits":
        """The same splits, read once and kept in memory, for data that is read several times."""
        return evolve(self, batches={part: list(batches) for part, batches in self.batches.items()})

    def read(self, how: Callable[[Iterable[Batch]], _T], *, progress: bool = False) -> dict[str, _T]:
        """Apply a function to the batches of each split.

        Args:
            how: called once for each split.
            progress: whether to show progress on standard error.
        """
        return {part: how(with_progress(batches, progress)) for part, batches in self.batches.items()}

    def raw(self, *, progress: bool = False) -> dict[str, Features] | None:
        """The raw input as features, see `raw_features`; None if it has no fixed size.

        Args:
            progress: whether to show progress on standard error.
        """
        found = self.read(raw_features, progress=progress)
        known = {part: features for part, features in found.items() if features is not None}
        return known if len(known) == len(found) else None
