"""Data interface that commands use: batches of a split, names of the splits, and labels.

Commands depend on this protocol and on no modality. A modality's configuration implements it without inheritance.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from attrs import frozen

from d2v.core.data.batches import Batches
from d2v.core.data.contents import Contents
from d2v.core.labels import Labels
from d2v.core.model import AdapterConfig, Batch, ModalityAdapter


@frozen(kw_only=True)
class Splits:
    """Splits of a data set by purpose.

    Args:
        train: split to train on.
        val: split to choose settings and checkpoints on, or None. Never the same as `test`.
        test: split to report results on, or None.
        pretrain: split to pretrain on, without labels; None = `train`. It is larger than `train` where a test split is
            held out of a data set that has none, see `HoldOut`.
        whole: all samples of such a data set, held-out samples included; None = nothing is held out by rule.

    Raises:
        ValueError: if two of them are the same.

    >>> Splits(train="train", val="val", test="test").val
    'val'
    """

    train: str
    val: str | None = None
    test: str | None = None
    pretrain: str | None = None
    whole: str | None = None

    def __attrs_post_init__(self) -> None:
        given = [name for name in (self.train, self.val, self.test) if name is not None]
        if len(set(given)) < len(given):
            raise ValueError(f"splits {', '.join(given)}: results would be measured on samples trained or chosen on")


class DataConfig(Protocol):
    """Configuration of a data set.

    Attributes:
        inherited: fields that later commands inherit from the trained model unless they are set.
    """

    inherited: ClassVar[tuple[str, ...]]

    @property
    def path(self) -> str:
        """Path of the data, or the name of a built-in data set."""
        ...

    def build(
        self,
        split: str | None,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = False,
        labels: Labels | None = None,
    ) -> Batches:
        """Return the batches of a split.

        Args:
            split: name of the split; None = all samples, as for predictions.
            batch_size: samples per batch on this rank.
            seed: seed of the run.
            rank: rank of this process.
            world_size: number of processes that share the split.
            training: True = endless, shuffled and augmented; False = one pass in order, as in evaluation.
            labels: labels that samples must have, with their numbering; None = labels as in the data, if it has any.

        Raises:
            DataError: if the data or the split is missing, nothing can be read, or samples lack these labels.
        """
        ...

    def prepare(self, items: Iterable[Any]) -> Batch:
        """Prepare samples that are not part of a data set as one batch, as in evaluation. `path` is ignored.

        Implementations use `item_list` and `item_error`.

        Args:
            items: paths of files, or objects in memory: images as PIL images, arrays or tensors, recordings as pairs
                (array, sampling rate), text as strings.

        Returns:
            A batch on the CPU in the order of the items, without labels, padded where lengths differ.

        Raises:
            DataError: naming the item, if one is broken or of a type that the modality does not take; if there are
                none.
        """
        ...

    def preparation(self) -> Mapping[str, Any]:
        """Preprocessing of raw input as plain values by key, saved so that a model is used as it was trained."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """Files that a model trained on this data needs in addition to its weights (tokenizer, dictionary), by name."""
        ...

    def contents(self) -> Contents:
        """Contents of the data set and unused files, as every command prints them before any work.

        No sample is read.

        Raises:
            DataError: if the data is missing or cannot be used as it is; says what to change.
        """
        ...

    def splits(self) -> Splits:
        """Splits of this data set; raises `DataError` if it cannot be read."""
        ...

    def labels(self, wanted: type[Labels]) -> Labels:
        """Labels of the training split.

        Args:
            wanted: type of labels: `Classes`, `Symbols` ...

        Raises:
            DataError: if the data has no such labels; says how to provide them.
        """
        ...

    def match(self, adapter: ModalityAdapter) -> None:
        """Adapt an adapter to this data; raises `DataError` naming the field if that is impossible."""
        ...

    def matching(self, adapter: AdapterConfig) -> AdapterConfig:
        """Return the configuration of the adapter after `match`; raises `DataError` in the same cases."""
        ...


@runtime_checkable
class UsesFiles(Protocol):
    """A data configuration that prepares input with files of the trained model, such as its tokenizer."""

    def with_files(self, files: Mapping[str, bytes]) -> DataConfig:
        """Return the same configuration with the files of a model instead of its own.

        Args:
            files: as from `DataConfig.files` when the model was trained: content by name; {} = it has none.

        Raises:
            DataError: if a file is broken.
        """
        ...


@runtime_checkable
class UsesAdapter(Protocol):
    """A data configuration that depends on limits of the model, such as its longest input."""

    def with_adapter(self, adapter: AdapterConfig) -> DataConfig:
        """Return the same configuration for a model with this adapter.

        Args:
            adapter: configuration of the adapter that takes the input.
        """
        ...


def with_files(data: DataConfig, files: Mapping[str, bytes]) -> DataConfig:
    """Return a data configuration that prepares input with the files of a model, if it uses any (`UsesFiles`)."""
    return data.with_files(files) if isinstance(data, UsesFiles) else data


def with_adapter(data: DataConfig, adapter: AdapterConfig | None) -> DataConfig:
    """Return a data configuration for a model with this adapter, if it depends on it (`UsesAdapter`)."""
    return data.with_adapter(adapter) if adapter is not None and isinstance(data, UsesAdapter) else data
