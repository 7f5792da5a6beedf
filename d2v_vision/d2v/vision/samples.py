"""Samples of images and batches of them, and the numbers of their classes."""

from unicodedata import normalize

import torch
from torch import Tensor

from d2v.core.data import DataError, Identity, few_of_each, sample_seed
from d2v.core.labels import Classes, Labels
from d2v.core.model import Batch
from d2v.core.suggestions import nearest
from d2v.vision.preparation import Preparation
from d2v.vision.sources import ImageSource

_Sample = tuple[Tensor, int | None, int]


class ImageSamples:
    """Samples of a source: picture, number of its class, id in the source.

    Args:
        source: where pictures are read from.
        transform: what prepares a picture.
        kept: ids of the pictures to use; None = all.
        numbers: the model's number of each class of the source; None = the source's own.
    """

    def __init__(
        self,
        source: ImageSource,
        transform: Preparation,
        *,
        kept: Tensor | None,
        numbers: list[int] | None,
    ) -> None:
        self.source, self.transform = source, transform
        self.kept, self.numbers = kept, numbers

    def __len__(self) -> int:
        return len(self.source) if self.kept is None else len(self.kept)

    def name(self, id: int) -> str:
        """What messages call the picture."""
        return self.source.name(id)

    def identity(self) -> Identity:
        """Which pictures these are, by their names."""
        keys, kept = self.source.keys(), torch.arange(len(self.source)) if self.kept is None else self.kept
        if self.source.sizes(kept[:0]) is None:
            return Identity.of(keys[kept])
        return Identity.of(keys[kept], lambda places: self._sizes(kept[places]))

    def _sizes(self, ids: Tensor) -> Tensor:
        found = self.source.sizes(ids)
        assert found is not None  # it was asked before
        return found

    def get(self, id: int, *, seed: int, epoch: int) -> _Sample:
        """A prepared picture, augmented by (seed, epoch, id)."""
        id = id if self.kept is None else int(self.kept[id])
        image, label = self.source[id]
        if label is not None and self.numbers is not None:
            label = self.numbers[label]
        drawn_by = sample_seed(seed=seed, epoch=epoch, id=id) if self.transform.drawn else None
        return self.transform(image, drawn_by), label, id


def collate_images(samples: list[_Sample], ids: Tensor) -> Batch:
    """Samples of one size as a batch; its ids are those of the source."""
    del ids  # places among the kept ones
    labels = [label for _, label, _ in samples if label is not None]
    return Batch(
        source=torch.stack([image for image, _, _ in samples]),
        ids=torch.tensor([id for _, _, id in samples]),
        labels=torch.tensor(labels) if len(labels) == len(samples) else None,
    )


def class_numbers(path: str, source: ImageSource, labels: Labels) -> list[int]:
    """The model's number of each class of a source.

    Raises:
        DataError: if labels are no classes, the source has none, or one that the model does not know.
    """
    if not isinstance(labels, Classes):
        raise other_labels(path, type(labels))
    if not source.classes:
        raise unlabelled(path)
    # One name may be written in two Unicode forms; models of older versions keep that of their folders.
    known = {normalize("NFC", name): number for number, name in enumerate(labels.names)}
    known |= {name: number for number, name in enumerate(labels.names)}
    for name in source.classes:
        if name not in known:
            raise DataError(
                f"data.path={path!r} has a class {name!r}, which is none of the model's {len(labels.names)} classes"
                f"{nearest(name, known)}"
            )
    return [known[name] for name in source.classes]


def few_ids(path: str, source: ImageSource, per_class: int, *, seed: int, among: Tensor | None = None) -> Tensor:
    """Ids of so many pictures of each class, drawn by the seed.

    Args:
        path: for messages.
        source: of the pictures.
        per_class: how many.
        seed: of the draw.
        among: ids that may be drawn; None = all.

    Raises:
        DataError: if pictures are unlabelled, or a class has fewer.
    """
    usable = set(range(len(source)) if among is None else among.tolist())
    known = (source.label(id) if id in usable else None for id in range(len(source)))
    labels = [-1 if label is None else label for label in known]
    if all(label < 0 for label in labels):
        raise DataError(f"data.per_class={per_class} needs labels, and data.path={path!r} has none")
    for number, name in enumerate(source.classes):
        found = labels.count(number)
        if found < per_class:
            raise DataError(f"data.per_class={per_class}, but class {name!r} has {found} images only")
    return few_of_each(torch.tensor(labels), per_class, seed=seed)


def unlabelled(path: str) -> DataError:
    """The error of a source without classes where some are asked for."""
    return DataError(
        f"data.path={path!r} has no labels: images of a class lie in a folder of their own, below the split, and "
        "no images beside these folders; a list (.csv) may name a label for each"
    )


def other_labels(path: str, wanted: type[Labels]) -> DataError:
    """The error of a task that needs labels which images do not have."""
    return DataError(f"data.path={path!r}: images have {Classes.what}, and the task needs {wanted.what}")
