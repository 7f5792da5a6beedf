"""Images as the data of a recipe: source, augmentation, preprocessing and classes.

`sources` opens the images, `samples` makes samples and batches, and `d2v.core.data` handles order and broken files.
Pillow and torchvision are imported when they are needed, so this module can be imported without the extra.
"""

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, lt, min_len, optional

from d2v.core.changes import may_change
from d2v.core.data import Contents, DataError, FixedPlan, Loader, Splits
from d2v.core.data.holding_out import HoldingOut
from d2v.core.labels import Classes, Labels
from d2v.core.model import AdapterConfig, Batch, ModalityAdapter
from d2v.core.paths import PathText
from d2v.core.validators import fraction, must, one_of, positive
from d2v.vision.adapter import ImageAdapter
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.files import ImageFolder
from d2v.vision.items import item_images
from d2v.vision.preparation import MEAN, STD, Preparation, for_channels, is_area_range, is_range
from d2v.vision.reading import Channels, Reader
from d2v.vision.samples import ImageSamples, class_numbers, collate_images, few_ids, other_labels, unlabelled
from d2v.vision.sources import ImageSet, ImageSource, open_set

__all__ = ["ImageDataConfig", "ImageFolder"]


@frozen(kw_only=True)
class ImageDataConfig:
    """Images of a folder, a list or a named set; the defaults are the published preprocessing.

    Args:
        path: one of
            a folder with a subfolder for each split: `train`, and `val` or `test` or both, in any spelling;
            a folder without splits: it is divided into `train` and `test`, see `hold_out`;
            an image file or a list of image files: `.txt` with one path a line, `.csv` or `.tsv` with the column `path`
            and, optionally, `label` and `split`; paths are relative to the list;
            the name of a built-in set: `fashion-mnist` (splits train, val, test) or `digits` (train, test);
            `torchvision:NAME:FOLDER`: a class of `torchvision.datasets` and the folder of its downloaded files.
        size: height and width of the model's input in pixels.
        channels: 3 = RGB, 1 = grey.
        crop_area: range of a random crop's area, as fractions of the image; None = no random crop, as in evaluation.
        crop_ratio: range of a crop's aspect ratio, width by height.
        flip: probability of a horizontal flip.
        mean: subtracted from values in 0 to 1, one number or one for each channel; None = ImageNet's. A model keeps the
            value that it was pretrained with.
        std: divisor after that, one number or one for each channel; None = ImageNet's.
        resize: shorter side before the centre crop in evaluation, in pixels; None = size * 256 / 224.
        hold_out: fraction held out as the split `test` if the data has no split to report on; selected by a hash of the
            names, in each class (see `d2v.core.data.HoldOut`). The rest is `train`, both are `train+test`. 0 = nothing.
            None = 0.2, but pretraining uses all images, as it reads no labels.
        hold_out_seed: seed of the held-out selection.
        per_class: train on this number of images of each class, drawn by seed; None = on all. Their ids are those of
            the whole split.
        max_megapixels: image files with more pixels (millions) count as broken; they are not decoded.
        max_value: value of white in files of more than 8 bits, for example 4095 for 12 bits in a 16-bit file; None =
            65535 if a value is above 32767, otherwise the file counts as broken, as do floats and 32-bit integers.
        num_workers: loader processes, at most one for each CPU core; 0 = load in the training process.

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
        validator=must(lambda area: area is None or is_area_range(area), "two rising fractions in (0, 1], or None"),
    )
    crop_ratio: tuple[float, float] = field(
        default=(3 / 4, 4 / 3), validator=must(is_range, "two rising numbers above 0")
    )
    flip: float = field(default=0.5, validator=fraction)
    mean: tuple[float, ...] | None = field(default=None, validator=for_channels)
    std: tuple[float, ...] | None = field(default=None, validator=for_channels)
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
            raise ValueError(f"resize={resize} must be at least size={self.size}, the size of the crop")

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
        """Build the loader of a split.

        Args:
            split: name of the split; None = all of a folder or list, or the test split of another set.
            batch_size: images in a batch of this rank.
            seed: seed of the run.
            rank: rank of this process.
            world_size: number of processes that share the split.
            training: True = endless, shuffled and augmented; False = one pass in order, with a centre crop.
            labels: classes to number the images by; None = the data's own classes, if any.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: if the folder, the split, the set or a class does not exist, there are no images, they have no
                such labels, or a class has fewer than `per_class`.
        """
        split, source, kept = self._held_out.open_split(split)
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
        # More workers than CPU cores would only wait for each other.
        workers = min(self.num_workers, os.cpu_count() or 1)
        return Loader(images, collate_images, plan, endless=training, num_workers=workers)

    def prepare(self, items: Iterable[Any]) -> Batch:
        """Preprocess given images as in evaluation: with a centre crop, nothing random.

        Args:
            items: paths, Pillow images, uint8 arrays `h w` or `h w c`, or uint8 tensors `h w` or `c h w`.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: naming the item, if one is broken or not an image; if there are none.

        >>> data = ImageDataConfig(path="digits", size=8, channels=1)
        >>> data.prepare([torch.zeros(3, 20, 30, dtype=torch.uint8)]).source.shape
        torch.Size([1, 1, 8, 8])
        """
        _require_extra()
        transform = self._transform(training=False)
        return Batch(source=torch.stack([transform(pixels, None) for pixels in item_images(items, self._reader())]))

    def preparation(self) -> Mapping[str, Any]:
        """Channels, mean and standard deviation; the size may differ if the model's positions allow it."""
        mean, std = self._mean_std()
        return {"channels": self.channels, "mean": list(mean), "std": list(std)}

    def files(self) -> Mapping[str, bytes]:
        """No files: a model of images needs only its weights."""
        return {}

    def contents(self) -> Contents:
        """Describe the data set and the files that are not used; reads no images.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: if the path does not exist, contains no images, or its folders are ambiguous.

        >>> ImageDataConfig(path="digits").contents().line()
        'digits: 1797 images (train 1438, test 359), 10 classes (0, 1, 2, ...)'
        """
        found = self._set.contents()
        return self._held_out.described(found, labelled=bool(found.classes))

    def splits(self) -> Splits:
        """The splits of this data set.

        With a `test`, `val` is for choosing settings; without, results are reported on `val`. If there is neither, they
        are reported on held-out images (`hold_out`).

        Raises:
            DataError: if the folder or the set does not exist.
        """
        return self._held_out.splits()

    def labels(self, wanted: type[Labels]) -> Labels:
        """The classes of the training split.

        Raises:
            MissingExtraError: if torchvision or Pillow is not installed.
            DataError: if the folder, the training split or the set does not exist, it has no classes, or the labels are
                of another type.
        """
        if wanted is not Classes:
            raise other_labels(self.path, wanted)
        names = self._set.classes(self._set.splits().train)
        if not names:
            raise unlabelled(self.path)
        return Classes(names)

    def classes(self, split: str) -> tuple[str, ...]:
        """Class names that number a split if no model gives any; () = no classes.

        Raises:
            DataError: if the split does not exist, or has a class that the training split lacks.
        """
        known = self._held_out.splits()
        return self._set.numbering(known.train if known.whole and split in (known.test, known.whole) else split)

    def match(self, adapter: ModalityAdapter) -> None:
        """Resize an adapter to images of this size.

        Raises:
            DataError: if it cannot be resized, takes another number of channels, or does not take images.
        """
        if not isinstance(adapter, ImageAdapter):
            raise DataError(f"data.path={self.path!r} gives images, but the model has a {type(adapter).__name__}")
        self._check_channels(adapter.front.channels)
        try:
            adapter.resize((self.size, self.size))
        except ValueError as error:
            raise DataError(f"data.size={self.size} does not fit the model: {error}") from error

    def matching(self, adapter: AdapterConfig) -> AdapterConfig:
        """Return the adapter's configuration for images of this size.

        Raises:
            DataError: if it takes another number of channels, or does not take images.
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
        """The image set; a folder is scanned once for each configuration."""
        _require_extra()
        return open_set(self.path)

    @property
    def _held_out(self) -> HoldingOut[ImageSource]:
        return HoldingOut(
            path=self.path,
            found=self._set.splits(),
            opened=lambda split: self._set.open(split, self._reader()),
            fraction=self.hold_out,
            seed=self.hold_out_seed,
            unit="images",
        )

    def _reader(self) -> Reader:
        return Reader(channels=self.channels, max_megapixels=self.max_megapixels, max_value=self.max_value)

    def _transform(self, training: bool) -> Preparation:
        mean, std = self._mean_std()
        shorter = round(self.size * 256 / 224) if self.resize is None else self.resize
        crop = (self.crop_area, self.crop_ratio) if training and self.crop_area is not None else None
        return Preparation.of(self.size, shorter, crop=crop, flip=self.flip if training else 0.0, mean=mean, std=std)

    def _mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.mean or MEAN[self.channels], self.std or STD[self.channels]


def _require_extra() -> None:
    from d2v.vision import modality

    modality.require_extra()
