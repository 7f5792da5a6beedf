"""Images as data of a recipe: where they are, how they are augmented and prepared, what their classes are.

What is read is `sources`'; samples and batches are `samples`'; order and broken files are `d2v.core.data`'s. Pillow
and torchvision are imported when they are needed, so that this module can be imported without the extra.
"""

import math
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from attrs import Attribute, evolve, field, frozen
from attrs.validators import ge, lt, min_len, optional
from torch import Tensor

from d2v.core.changes import may_change
from d2v.core.data import Contents, DataConfig, DataError, FixedPlan, Loader, Splits
from d2v.core.labels import Classes, Labels
from d2v.core.model import AdapterConfig, Batch, ModalityAdapter
from d2v.core.paths import PathText
from d2v.core.validators import fraction, must, one_of, positive
from d2v.vision.adapter import ImageAdapter
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.folder import ImageFolder
from d2v.vision.held_out import held_out_splits, open_part, with_held_out
from d2v.vision.items import item_pictures
from d2v.vision.preparation import MEAN, STD, Preparation, unprepared
from d2v.vision.reading import Reader
from d2v.vision.samples import ImageSamples, class_numbers, collate_images, few_ids, other_labels, unlabelled
from d2v.vision.sources import ImageSet, open_set

__all__ = ["ImageDataConfig", "ImageFolder"]

Channels = Literal[1, 3]


def _is_rising(pair: tuple[float, float]) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1]


def _in_picture(area: tuple[float, float]) -> bool:
    return _is_rising(area) and area[1] <= 1


@frozen(kw_only=True)
class ImageDataConfig:
    """Images of a folder or a set with a name; the defaults are the published preprocessing.

    Args:
        path: one of
            a folder with a subfolder for each split: `train`, and `val` or `test` or both, in any spelling;
            a folder without: parts of it are the splits `train` and `test`, see `hold_out`;
            an image file, or a list of them: `.txt` with a path in each line, `.csv` or `.tsv` with the columns `path`,
            and if there are any `label` and `split`; paths are relative to the list;
            the name of a built-in set: `fashion-mnist` (splits train, val, test) or `digits` (train, test);
            `torchvision:NAME:FOLDER`, a class of `torchvision.datasets` and where its files have been downloaded to.
        size: height and width in pixels of what the model sees.
        channels: 3 = RGB, 1 = grey.
        crop_area: fraction of the picture's area that a random crop covers; None = no random crop, as in evaluation.
        crop_ratio: range of width by height of a crop.
        flip: probability of a horizontal flip.
        mean: subtracted from values from 0 to 1, one number or one a channel; None = ImageNet's. A model keeps
            what it was pretrained with.
        std: what is divided by afterwards, likewise.
        resize: shorter side before the central crop of evaluation; None = size * 256 / 224.
        hold_out: fraction that is held out to report on, where the data have no such part: by a hash of names, about so
            many of each class (see `d2v.core.data.HoldOut`). 0 = nothing. None = 0.2, but pretraining uses all images,
            as it reads no labels. The parts are the splits `train` and `test`, both are `train+test`.
        hold_out_seed: other images are held out for another one.
        per_class: train on so many pictures of each class, drawn by seed; None = on all. Their ids stay those of the
            whole split.
        max_megapixels: image files with more pixels (millions) count as broken; they are not decoded.
        max_value: what white is in files of more than 8 bits, say 4095 for 12 bits in a file of 16; None = 65535 where
            a value is above 32767, else the file counts as broken, as floats and integers of 32 bits do.
        num_workers: reading processes, at most one a processor; 0 = read in the training process.

    Raises:
        ValueError: if a value is out of its range.

    >>> loader = ImageDataConfig(path="digits", size=8, resize=8, channels=1, num_workers=0).build("test", batch_size=5)
    >>> next(iter(loader)).source.shape, loader.name(3)
    (torch.Size([5, 1, 8, 8]), 'digits/test/3')
    """

    inherited: ClassVar[tuple[str, ...]] = (
        "size",
        "resize",
        "channels",
        "mean",
        "std",
        "max_value",
        "hold_out",
        "hold_out_seed",
    )

    path: PathText = field(validator=min_len(1), metadata=may_change("data"))
    size: int = field(default=224, validator=ge(1))
    channels: Channels = field(default=3, validator=one_of(Channels))
    crop_area: tuple[float, float] | None = field(
        default=(0.2, 1.0),
        validator=must(lambda area: area is None or _in_picture(area), "two rising fractions in (0, 1], or None"),
    )
    crop_ratio: tuple[float, float] = field(
        default=(3 / 4, 4 / 3), validator=must(_is_rising, "two rising numbers above 0")
    )
    flip: float = field(default=0.5, validator=fraction)
    mean: tuple[float, ...] | None = field(default=None)
    std: tuple[float, ...] | None = field(default=None)
    resize: int | None = field(default=None)
    hold_out: float | None = field(default=None, validator=optional([ge(0), lt(1)]))
    hold_out_seed: int = field(default=0, validator=ge(0))
    per_class: int | None = field(default=None, validator=optional(ge(1)))
    max_megapixels: float = field(default=200.0, validator=positive)
    max_value: float | None = field(default=None, validator=optional(positive))
    num_workers: int = field(default=4, validator=ge(0), metadata=may_change("free"))

    @resize.validator
    def _check_resize(self, _: object, resize: int | None) -> None:
        if resize is not None and resize < self.size:
            raise ValueError(f"resize={resize} must be at least size={self.size}, which is cut out of it")

    @mean.validator
    @std.validator
    def _check_channel_values(self, attribute: "Attribute[Any]", values: tuple[float, ...] | None) -> None:
        if values is not None and (len(values) not in (1, self.channels) or not all(map(math.isfinite, values))):
            raise ValueError(f"{attribute.name}={values!r} must be one number, or {self.channels}, one a channel")
        if values is not None and attribute.name == "std" and min(values) <= 0:
            raise ValueError(f"std={values!r} must be above 0")

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
    ) -> Loader[Any]:
        """The batches of a split.

        Args:
            split: its name; None = all of a folder, or the test split of a set that has no folder.
            batch_size: images in a batch of this rank.
            seed: of the run.
            rank: of this process.
            world_size: processes that share the split.
            training: without end, shuffled and augmented; else one pass in order, in the middle of the pictures.
            labels: the classes that pictures must be of, numbered as here; None = the data's own, in sorted order for
                folders, if they have any.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: if the folder, the split, the set or a class is not there, there are no images, they have no such
                labels, or a class has fewer than `per_class`.
        """
        _require_extra()
        split, source, kept = open_part(self._set, self.path, split, self._reader(), self.hold_out, self.hold_out_seed)
        numbers = None
        if labels is None and split is not None and source.classes:
            labels = Classes(self._set.numbering(split))
        if labels is not None:
            numbers = class_numbers(self.path, source, labels)
        if training and self.per_class is not None:
            kept = few_ids(self.path, source, self.per_class, seed=seed, among=kept)
        images = ImageSamples(source, self._transform(training), kept=kept, numbers=numbers)
        plan = FixedPlan(
            n=len(images),
            batch_size=batch_size,
            seed=seed,
            shuffle=training,
            drop_last=training,
            rank=rank,
            world_size=world_size,
        )
        # More workers than processors would only wait for each other.
        workers = min(self.num_workers, os.cpu_count() or 1)
        return Loader(images, collate_images, plan, endless=training, num_workers=workers)

    def prepare(self, items: Iterable[Any]) -> Batch:
        """Images that lie in no folder, prepared as in evaluation: the middle of each picture, nothing random.

        Args:
            items: paths, pictures of Pillow, uint8 arrays `h w` or `h w c`, or uint8 tensors `h w` or `c h w`.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: naming the item, if one is broken or no image; if there are none.

        >>> data = ImageDataConfig(path="digits", size=8, channels=1)
        >>> data.prepare([torch.zeros(3, 20, 30, dtype=torch.uint8)]).source.shape
        torch.Size([1, 1, 8, 8])
        """
        _require_extra()
        transform = self._transform(training=False)
        return Batch(source=torch.stack([transform(picture, None) for picture in item_pictures(items, self._reader())]))

    def preparation(self) -> Mapping[str, Any]:
        """Channels, mean and standard deviation; the size may differ where the model's positions allow it."""
        mean, std = self._mean_std()
        return {"channels": self.channels, "mean": list(mean), "std": list(std)}

    def files(self) -> Mapping[str, bytes]:
        """None: a model of images needs its weights alone."""
        return {}

    def contents(self) -> Contents:
        """What the data set holds and what of it is not used; no picture is read.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: if the path is not there, holds no images, or what its folders are is unclear.

        >>> ImageDataConfig(path="digits").contents().line()
        'digits: 1797 images (train 1438, test 359), 10 classes (0, 1, 2, ...)'
        """
        _require_extra()
        return with_held_out(self._set, self._set.contents(), self._reader(), self.hold_out, self.hold_out_seed)

    def splits(self) -> Splits:
        """The parts of this data set.

        A folder's `val` chooses only where there is a `test` to report on; alone it is what is reported on. Where there
        is neither, `hold_out` says what is.

        Raises:
            DataError: if the folder or the set is not there.
        """
        _require_extra()
        return held_out_splits(self._set.splits(), self.hold_out)

    def labels(self, wanted: type[Labels]) -> Labels:
        """The classes of the training split.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: if the folder, the training split or the set is not there, it has no classes, or something else
                is wanted.
        """
        _require_extra()
        if wanted is not Classes:
            raise other_labels(self.path, wanted)
        names = self._set.classes(self._set.splits().train)
        if not names:
            raise unlabelled(self.path)
        return Classes(names)

    def classes(self, split: str) -> tuple[str, ...]:
        """Names of the classes by which a split is numbered where no model says it; () = it has none.

        Raises:
            DataError: if the split is not there, or has a class that the training split lacks.
        """
        _require_extra()
        known = held_out_splits(self._set.splits(), self.hold_out)
        return self._set.numbering(known.train if known.whole and split in (known.test, known.whole) else split)

    def match(self, adapter: ModalityAdapter) -> None:
        """Make an adapter take images of this size.

        Raises:
            DataError: if it cannot, takes another number of channels, or no images at all.
        """
        if not isinstance(adapter, ImageAdapter):
            raise DataError(f"data.path={self.path!r} gives images, but the model has a {type(adapter).__name__}")
        self._check_channels(adapter.front.channels)
        try:
            adapter.resize((self.size, self.size))
        except ValueError as error:
            raise DataError(f"data.size={self.size} does not fit the model: {error}") from error

    def matching(self, adapter: AdapterConfig) -> AdapterConfig:
        """The configuration of an adapter that takes images of this size.

        Raises:
            DataError: if it takes another number of channels, or no images at all.
        """
        if not isinstance(adapter, ImageAdapterConfig):
            raise DataError(f"data.path={self.path!r} gives images, but the model has a {type(adapter).__name__}")
        self._check_channels(adapter.channels)
        return evolve(adapter, image_size=(self.size, self.size))

    def _check_channels(self, channels: int) -> None:
        if channels != self.channels:
            raise DataError(
                f"data.channels={self.channels}, but the model takes {channels}; set data.channels={channels}"
            )

    @cached_property
    def _set(self) -> ImageSet:
        """What the path names; a folder is looked through once for each configuration."""
        return open_set(self.path)

    def _reader(self) -> Reader:
        return Reader(channels=self.channels, max_megapixels=self.max_megapixels, max_value=self.max_value)

    def _transform(self, training: bool) -> Preparation:
        mean, std = self._mean_std()
        shorter = round(self.size * 256 / 224) if self.resize is None else self.resize
        crop = (self.crop_area, self.crop_ratio) if training and self.crop_area is not None else None
        return Preparation.of(self.size, shorter, crop=crop, flip=self.flip if training else 0.0, mean=mean, std=std)

    def _mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.mean or MEAN[self.channels], self.std or STD[self.channels]


def images_of(batch: Batch, data: DataConfig) -> Tensor:
    """Images as they were before their values were prepared for the model, `b c h w` from 0 to 1.

    >>> data = ImageDataConfig(path="digits", channels=1, mean=(0.5,), std=(0.5,))
    >>> images_of(Batch(source=torch.tensor([[[[-1.0, 0.0, 1.0]]]])), data)
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    assert isinstance(data, ImageDataConfig)
    mean, std = data._mean_std()
    return unprepared(batch.source, mean=mean, std=std)


def _require_extra() -> None:
    from d2v.vision import modality

    modality.require_extra()
