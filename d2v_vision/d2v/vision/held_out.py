"""Hold out a `test` split where image data has none; the rest is `train`. `HoldOut` selects the images."""

from attrs import evolve
from torch import Tensor

from d2v.core.data import Contents, DataError, HoldOut, Splits
from d2v.core.data.held_out import ALL, DEFAULT_FRACTION, TEST, TRAIN
from d2v.vision.reading import Reader
from d2v.vision.sources import ImageSet, ImageSource


def held_out_splits(found: Splits, fraction: float | None) -> Splits:
    """Return the splits of a data set, with a held-out one if there is none to report on.

    Args:
        found: splits in the data.
        fraction: fraction to hold out, 0 = nothing; None = the default, and pretraining uses all images.

    >>> held_out_splits(Splits(train="train"), None).test
    'test'
    """
    if fraction == 0 or not _lacks_test(found):
        return found
    return Splits(train=found.train, test=TEST, pretrain=ALL if fraction is None else None, whole=ALL)


def open_split(
    images: ImageSet, path: str, split: str | None, reader: Reader, fraction: float | None, seed: int
) -> tuple[str | None, ImageSource, Tensor | None]:
    """Return the split to read images from, its images, and the ids to use (None = all).

    Raises:
        DataError: if the split does not exist or has no images, or none can be held out.
    """
    rule = HoldOut(fraction=DEFAULT_FRACTION if fraction is None else fraction, seed=seed)
    if split not in (TRAIN, TEST, ALL) or rule.fraction == 0 or not _lacks_test(found := images.splits()):
        return split, images.open(split, reader), None
    source = images.open(found.train, reader)
    if split == ALL:
        return found.train, source, None
    held = rule.of(source.keys(), source.labels())
    kept = (held if split == TEST else ~held).nonzero()[:, 0]
    if not len(kept):
        raise DataError(
            f"data.path={path!r}: none of {len(source)} images can be held out, since no class has two; add images "
            "or set data.hold_out=0"
        )
    return found.train, source, kept


def with_held_out(images: ImageSet, found: Contents, reader: Reader, fraction: float | None, seed: int) -> Contents:
    """Return the contents of a data set with the sizes of `train` and `test` if images are held out.

    Only images with classes are held out: without labels there is nothing to report.
    """
    splits = images.splits()
    if fraction == 0 or not found.classes or not _lacks_test(splits):
        return found
    rule = HoldOut(fraction=DEFAULT_FRACTION if fraction is None else fraction, seed=seed)
    source = images.open(splits.train, reader)
    held = int(rule.of(source.keys(), source.labels()).sum())
    used = "; pretraining uses both" if fraction is None else ""
    counts = {TRAIN: len(source) - held, TEST: held}
    return evolve(found, splits=counts, held_out=f"held out by data.hold_out_seed={seed}{used}")


def _lacks_test(found: Splits) -> bool:
    return found.val is None and found.test is None
