"""Hold out a `test` split where a data set has none; the rest is `train`. `HoldOut` selects the samples."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from attrs import evolve, frozen
from torch import Tensor

from d2v.core.data.broken import DataError
from d2v.core.data.config import Splits
from d2v.core.data.contents import Contents
from d2v.core.data.held_out import ALL, DEFAULT_FRACTION, TEST, TRAIN, HoldOut


class NamedSamples(Protocol):
    """Samples of a split with names."""

    def __len__(self) -> int: ...

    def keys(self) -> Tensor:
        """`name_keys` of all samples, Long `n`."""
        ...

    def labels(self) -> Tensor | None:
        """Class numbers of all samples, Long `n`, -1 = none; None = unknown without reading them."""
        ...


S = TypeVar("S", bound=NamedSamples)


@frozen(kw_only=True)
class HoldingOut(Generic[S]):
    """Splits of a data set, with a held-out one if there is none to report on.

    Args:
        path: name of the data set in messages.
        found: splits in the data.
        opened: function from a split to its samples; None = all.
        fraction: fraction to hold out, 0 = nothing; None = the default, and pretraining uses all samples.
        seed: seed of the selection.
        unit: word for the samples, in the plural.
    """

    path: str
    found: Splits
    opened: Callable[[str | None], S]
    fraction: float | None
    seed: int
    unit: str

    def splits(self) -> Splits:
        """The splits by their use.

        >>> found = Splits(train="train")
        >>> HoldingOut(path="photos", found=found, opened=open, fraction=None, seed=0, unit="images").splits().test
        'test'
        """
        if not self._holds_out:
            return self.found
        return Splits(train=self.found.train, test=TEST, pretrain=ALL if self.fraction is None else None, whole=ALL)

    def open_split(self, split: str | None) -> tuple[str | None, S, Tensor | None]:
        """Return the split to read samples from, its samples, and the ids to use (None = all).

        Raises:
            DataError: if the split does not exist or has no samples, or none can be held out.
        """
        if split not in (self.found.train, TRAIN, TEST, ALL) or not self._holds_out:
            return split, self.opened(split), None
        source = self.opened(self.found.train)
        if split == ALL:
            return self.found.train, source, None
        held = self._rule.of(source.keys(), source.labels())
        kept = (held if split == TEST else ~held).nonzero()[:, 0]
        if not len(kept):
            raise DataError(
                f"data.path={self.path!r}: none of {len(source)} {self.unit} can be held out, since no class has two; "
                f"add {self.unit} or set data.hold_out=0"
            )
        return self.found.train, source, kept

    def described(self, contents: Contents, *, labelled: bool) -> Contents:
        """Contents of the data set with the sizes of `train` and `test` if samples are held out.

        Args:
            contents: of the data as it is.
            labelled: whether there are labels; without them there is nothing to report, and nothing is held out.
        """
        if not labelled or not self._holds_out:
            return contents
        source = self.opened(self.found.train)
        held = int(self._rule.of(source.keys(), source.labels()).sum())
        used = "; pretraining uses both" if self.fraction is None else ""
        counts = {TRAIN: len(source) - held, TEST: held}
        return evolve(contents, splits=counts, held_out=f"held out by data.hold_out_seed={self.seed}{used}")

    @property
    def _holds_out(self) -> bool:
        return self.fraction != 0 and self.found.val is None and self.found.test is None

    @property
    def _rule(self) -> HoldOut:
        return HoldOut(fraction=DEFAULT_FRACTION if self.fraction is None else self.fraction, seed=self.seed)
