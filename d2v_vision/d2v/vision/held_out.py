"""Parts of images that have no part to report on: what `HoldOut` keeps back is the split `test`, the rest `train`."""

from typing import Literal

from torch import Tensor

from d2v.core.data import DataError, HoldOut, Splits
from d2v.core.data.held_out import ALL, DEFAULT_FRACTION, TEST, TRAIN
from d2v.vision.sources import ImageSource, open_source, splits_of


def held_out_splits(found: Splits, fraction: float | None) -> Splits:
    """The splits of a data set, with one that is held out where there is none to report on.

    Args:
        found: those that it has.
        fraction: to hold out, 0 = nothing; None = as is usual, but not in pretraining.

    >>> held_out_splits(Splits(train="train"), None).test
    'test'
    """
    if fraction == 0 or not _lacks_test(found):
        return found
    return Splits(train=found.train, test=TEST, pretrain=ALL if fraction is None else None, whole=ALL)


def open_part(
    path: str, split: str | None, channels: Literal[1, 3], *, hold_out: float | None, seed: int
) -> tuple[ImageSource, Tensor | None]:
    """The pictures of a split, and the ids of those that are in it; None = all.

    Raises:
        DataError: if the path, the split or the set is not there, it holds no images, or none can be held out.
    """
    rule = HoldOut(fraction=DEFAULT_FRACTION if hold_out is None else hold_out, seed=seed)
    if split not in (TRAIN, TEST, ALL) or rule.fraction == 0 or not _lacks_test(found := splits_of(path)):
        return open_source(path, split, channels), None
    source = open_source(path, found.train, channels)
    if split == ALL:
        return source, None
    held = rule.of(source.keys(), source.labels())
    kept = (held if split == TEST else ~held).nonzero()[:, 0]
    if not len(kept):
        raise DataError(
            f"data.path={path!r}: of {len(source)} images none can be held out, since no class has two; add images, "
            "or set data.hold_out=0"
        )
    return source, kept


def _lacks_test(found: Splits) -> bool:
    return found.val is None and found.test is None
