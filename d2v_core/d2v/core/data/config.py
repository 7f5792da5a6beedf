"""What a command asks of a modality's data: batches of a split, the names of the splits, and what the labels are.

Commands know this contract and no modality; a modality's configuration keeps it without inheriting anything.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

from attrs import frozen

from d2v.core.data.batches import Batches
from d2v.core.data.contents import Contents
from d2v.core.labels import Labels
from d2v.core.model import AdapterConfig, Batch, ModalityAdapter


@frozen(kw_only=True)
class Splits:
    """Which part of a data set is used for what.

    Args:
        train: what a model is trained on.
        val: what settings and checkpoints are chosen on, or None. Never the same as `test`.
        test: what reported figures are measured on, or None.
        pretrain: what a model is pretrained on, without labels; None = `train`. It is more where a part is held out
            of a data set that has none, see `HoldOut`.
        whole: all of such a data set, its held-out part too; None = no part of it is held out by a rule.

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
            raise ValueError(f"splits {', '.join(given)}: figures would be measured on what was trained or chosen on")


class DataConfig(Protocol):
    """A data set as a value that can be written down.

    Attributes:
        inherited: fields whose values a model hands on to whatever is done with it, where nothing else is said.
    """

    inherited: ClassVar[tuple[str, ...]]

    @property
    def path(self) -> str:
        """Where the data lie, or the name of a built-in set."""
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
        """The batches of a split.

        Args:
            split: its name; None = all there is, as for predictions.
            batch_size: samples in a batch of this rank.
            seed: of the run.
            rank: of this process.
            world_size: processes that share the split.
            training: without end, shuffled and augmented; else one pass in order, as in evaluation.
            labels: what samples must be labelled with, numbered as here; None = as the data have them, if at all.

        Raises:
            DataError: if the data or the split is not there, nothing can be read, or samples have no such labels.
        """
        ...

    def prepare(self, items: Iterable[Any]) -> Batch:
        """Samples that lie in no data set as one batch, prepared as in evaluation; `path` is not looked at.

        `item_list` and `item_error` are what a modality needs for it.

        Args:
            items: paths of files, or what a modality has in memory: images as pictures, arrays and tensors, recordings
                as pairs (array, sampling rate), text as strings.

        Returns:
            A batch on the CPU in the order of the items, padded where they are of different lengths, without labels.

        Raises:
            DataError: naming the item, if one is broken or of no kind that the modality takes; if there are none.
        """
        ...

    def preparation(self) -> Mapping[str, Any]:
        """How raw input becomes what a network sees, as plain values by key: a model is used as it was trained."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """What a model that is trained on this data needs beside its weights (tokenizer, dictionary), by file name."""
        ...

    def contents(self) -> Contents:
        """What the data set holds and what of it is not used, as every command says it before any work.

        No sample is read.

        Raises:
            DataError: if the data are not there, or cannot be used as they are; says what to change.
        """
        ...

    def splits(self) -> Splits:
        """The parts of this data set; raises `DataError` if it cannot be read."""
        ...

    def labels(self, wanted: type[Labels]) -> Labels:
        """What the labels of the training split are.

        Args:
            wanted: the class of the value: `Classes`, `Symbols` ...

        Raises:
            DataError: if the data have no such labels; says how they would have.
        """
        ...

    def match(self, adapter: ModalityAdapter) -> None:
        """Make an adapter take what this data gives; raises `DataError` naming the field if it cannot."""
        ...

    def matching(self, adapter: AdapterConfig) -> AdapterConfig:
        """The configuration of an adapter after `match`; raises `DataError` likewise."""
        ...
