"""Samples and batches of images, and their class numbers."""

import logging
from unicodedata import normalize

import torch
from torch import Tensor
from torch.utils.data import default_collate

from d2v.core.data import DataError, Identity, few_of_each, sample_seed
from d2v.core.labels import Classes, Labels
from d2v.core.model import Batch
from d2v.core.suggestions import nearest
from d2v.vision.preparation import Preparation
from d2v.vision.sources import ImageSource

_Sample = tuple[Tensor, int | None, int]

_logger = logging.getLogger(__name__)


class ImageSamples:
    """Samples of a source: image, class number, id in the source.

    Args:
        source: source of the images.
        transform: preprocessing of an image.
        kept: ids of the images to use; None = all.
        numbers: the model's number of each class of the source; None = the source's numbers.
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
        """Name of the image in messages."""
        return self.source.name(id)

    def identity(self) -> Identity:
        """Identity of the images, from their names and sizes."""
        keys, kept = self.source.keys(), torch.arange(len(self.source)) if self.kept is None else self.kept
        if self.source.sizes(kept[:0]) is None:
            return Identity.of(keys[kept])
        return Identity.of(keys[kept], lambda indices: self._sizes(kept[indices]))

    def _sizes(self, ids: Tensor) -> Tensor:
        found = self.source.sizes(ids)
        assert found is not None  # checked in `identity`
        return found

    def get(self, id: int, *, seed: int, epoch: int) -> _Sample:
        """Return a preprocessed image, augmented by (seed, epoch, id)."""
        id = id if self.kept is None else int(self.kept[id])
        pixels, label = self.source[id]
        if label is not None and self.numbers is not None:
            label = self.numbers[label]
        drawn_by = sample_seed(seed=seed, epoch=epoch, id=id) if self.transform.drawn else None
        return self.transform(pixels, drawn_by), label, id


def collate_images(samples: list[_Sample], ids: Tensor) -> Batch:
    """Collate samples of one size; the batch has the ids of the source."""
    del ids  # indices among the kept images
    labels = [label for _, label, _ in samples if label is not None]
    return Batch(
        source=default_collate([image for image, _, _ in samples]),  # in a worker, into shared memory
        ids=torch.tensor([id for _, _, id in samples]),
        labels=torch.tensor(labels) if len(labels) == len(samples) else None,
    )


def class_numbers(path: str, source: ImageSource, labels: Labels) -> list[int]:
    """Return the model's number of each class of a source.

    Published classifiers have numbers instead of names: they count the sorted names of the training folders.

    Raises:
        DataError: if the labels are not classes, the source has no classes, or one that the model does not have.
    """
    if not isinstance(labels, Classes):
        raise other_labels(path, type(labels))
    if not source.classes:
        raise unlabelled(path)
    numbers = tuple(map(str, range(labels.num_outputs)))
    if labels.names == numbers and len(source.classes) == len(numbers) and not {*numbers} & {*source.classes}:
        _logger.warning("the model's classes have no names: they are those of %s in the order of their names", path)
        return [sorted(source.classes).index(name) for name in source.classes]
    # A name may have two Unicode forms; models of older versions store the form of their folders.
    known = {normalize("NFC", name): number for number, name in enumerate(labels.names)}
    known |= {name: number for number, name in enumerate(labels.names)}
    for name in source.classes:
        if name not in known:
            raise DataError(
                f"data.path={path!r} has a class {name!r}, which is not one of the model's {len(labels.names)} classes"
                f"{nearest(name, known)}"
            )
    return [known[name] for name in source.classes]


def few_ids(path: str, source: ImageSource, per_class: int, *, seed: int, among: Tensor | None = None) -> Tensor:
    """Draw the ids of `per_class` images of each class.

    Args:
        path: name of the data in messages.
        source: source of the images.
        per_class: images of each class.
        seed: seed of the draw.
        among: ids to draw from; None = all.

    Raises:
        DataError: if the images are unlabelled, or a class has fewer images.
    """
    usable = set(range(len(source)) if among is None else among.tolist())
    known = (source.label(id) if id in usable else None for id in range(len(source)))
    labels = [-1 if label is None else label for label in known]
    if all(label < 0 for label in labels):
        raise DataError(f"data.per_class={per_class} needs labels, and data.path={path!r} has none")
    for number, name in enumerate(source.classes):
        found = labels.count(number)
        if found < per_class:
            raise DataError(f"data.per_class={per_class}, but class {name!r} has only {found} images")
    return few_of_each(torch.tensor(labels), per_class, seed=seed)


def unlabelled(path: str) -> DataError:
    """The error for a source without classes when labels are needed."""
    return DataError(
        f"data.path={path!r} has no labels: put the images of each class in a separate folder below the split, with no "
        "images next to these folders; or give a list (.csv) with a label for each image"
    )


def other_labels(path: str, wanted: type[Labels]) -> DataError:
    """The error for a task that needs another type of labels."""
    return DataError(f"data.path={path!r}: images have {Classes.what}, but the task needs {wanted.what}")
