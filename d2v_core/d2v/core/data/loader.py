"""Batches of one split, with an exact position and a list of what was broken.

Workers hold no state: all that is random about a sample is a function of (seed, epoch, id), so their number changes
nothing but the speed. The loader knows neither what a sample is nor what becomes of a batch.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch
from attrs import frozen
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from d2v.core.data.broken import BrokenSampleError, DataError, as_broken, listing
from d2v.core.data.order import Plan, Request
from d2v.core.masks import Draw
from d2v.core.masks.draw import below
from d2v.core.model import Batch

_logger = logging.getLogger(__name__)
_TRIES = 100  # if half of the files are broken, that many in a row are one in 10^30
_REPLACE = 102  # the end for which the draw is made
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
Position = tuple[int, int]


class Samples(Protocol[S_co]):
    """A data set: samples by their ids 0 to n-1, which must not change between runs; workers get a copy of it.

    It may also have a method `name(id)`, what the user knows a sample by, with the id that stands in `Batch.ids`.
    """

    def __len__(self) -> int:
        """N."""

    def get(self, id: int, *, seed: int, epoch: int) -> S_co:
        """One sample, the same for the same arguments; raises `BrokenSampleError` or OSError if it cannot be read."""


class Loader(Generic[S]):
    """Yields the batches of one split on one rank.

    For training (`endless`) epoch follows epoch without end. A broken sample is replaced by another that is drawn from
    (seed, epoch, id of the broken one), so batches keep their size on all ranks. Otherwise one pass is made and broken
    samples are left out, so that no sample counts twice; a batch without any is left out too. Both depend on the files
    alone, not on workers or on where a run was interrupted.

    `position` is (epoch, index of the next batch): inside the loop's body it already points behind the batch at hand.
    Iterating starts there; a single pass puts it back to the epoch's first batch when it ends. One iteration at a time.

    Args:
        samples: the data set.
        collate: samples and their ids, Long `b`, to a `Batch`; a function that can be pickled, as it runs in workers.
        batch_size: samples in a batch of this rank.
        seed: of the run.
        endless: for training, see above.
        shuffle: a new order in every epoch; None = where `endless`.
        drop_last: drop what makes no whole batch on all ranks, see `Plan`; None = where `endless`.
        num_workers: reading processes beside this one; 0 = read here.
        rank: of this process.
        world_size: processes that share the split.

    Raises:
        DataError: if there are no samples, or, while iterating, if none can be read.
        ValueError: if a number is out of its range, or there are too few samples for a batch.

    >>> class Numbers:
    ...     def __len__(self):
    ...         return 5
    ...     def get(self, id, *, seed, epoch):
    ...         return torch.tensor([10.0 * id])
    >>> def collate(samples, ids):
    ...     return Batch(source=torch.stack(samples), ids=ids)
    >>> loader = Loader(Numbers(), collate, batch_size=2, endless=False)
    >>> [batch.source.flatten().tolist() for batch in loader]
    [[0.0, 10.0], [20.0, 30.0], [40.0]]
    """

    def __init__(
        self,
        samples: Samples[S],
        collate: Callable[[list[S], Tensor], Batch],
        *,
        batch_size: int,
        seed: int = 0,
        endless: bool = True,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(samples) == 0:
            raise DataError("the data set is empty: it has no samples")
        self.samples = samples
        self.plan = Plan(
            n=len(samples),
            batch_size=batch_size,
            seed=seed,
            shuffle=endless if shuffle is None else shuffle,
            drop_last=endless if drop_last is None else drop_last,
            rank=rank,
            world_size=world_size,
        )
        if endless and self.plan.uneven:
            raise ValueError(
                f"{self.plan.n} samples give some of {world_size} processes a batch more than others, "
                "and training would wait for ever; use drop_last=True"
            )
        self.endless = endless
        self.broken: dict[str, str] = {}
        """What this process could not read so far: name to reason."""
        self._position: Position = (0, 0)
        self._requests = _Requests(self.plan, endless)
        self._loader: DataLoader[_Fetched] = DataLoader(
            _Fetch(samples, collate, seed=seed, replace=endless),
            batch_size=None,
            sampler=self._requests,
            num_workers=num_workers,
            collate_fn=_unchanged,
            persistent_workers=num_workers > 0,
            # Without one of its own, every iteration would take a number from PyTorch's generator, and a resumed run
            # would differ from one that went through.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.plan.num_batches

    @property
    def position(self) -> Position:
        """(epoch, index of the next batch in it)."""
        return self._position

    @position.setter
    def position(self, position: Position) -> None:
        epoch, index = position
        if epoch < 0 or not 0 <= index <= len(self):
            raise ValueError(f"position must be (epoch, batch of 0 to {len(self)}), not {tuple(position)}")
        self._position = (epoch, index)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.position[0]
        self._requests.start = self.position
        known, num_good = len(self.broken), 0
        try:
            for fetched in self._loader:
                self.broken.update(fetched.broken)
                if fetched.batch is not None:
                    num_good += 1
                    self._position = self._after(fetched.request)
                    yield fetched.batch
                elif self.endless:
                    raise DataError(f"no sample can be read, {_TRIES} in a row are broken; {self.report()}")
            if self.broken and not num_good:
                raise DataError(f"no sample can be read; {self.report()}")
        finally:
            if not self.endless:
                self._position = (epoch, 0)
            if len(self.broken) > known:
                _logger.warning("%s", self.report())

    def name(self, id: int) -> str:
        """What the user knows a sample by, for its id in `Batch.ids`."""
        named: Callable[[int], str] | None = getattr(self.samples, "name", None)
        return f"sample {id}" if named is None else named(id)

    def report(self) -> str:
        """Count and list of the samples that could not be read; empty if all could."""
        return listing(self.broken, self.plan.n)

    def _after(self, request: Request) -> Position:
        last = request.index + 1 == len(self)
        return (request.epoch + 1, 0) if last and self.endless else (request.epoch, request.index + 1)


@frozen(kw_only=True)
class _Fetched:
    request: Request
    batch: Batch | None
    broken: dict[str, str]


class _Requests(Sampler[Request]):
    def __init__(self, plan: Plan, endless: bool) -> None:
        self.plan = plan
        self.endless = endless
        self.start: Position = (0, 0)

    def __iter__(self) -> Iterator[Request]:
        epoch, first = self.start
        yield from self.plan.requests(epoch, first)
        while self.endless:
            epoch += 1
            yield from self.plan.requests(epoch)

    def __len__(self) -> int:
        return self.plan.num_batches


class _Fetch(Dataset[_Fetched], Generic[S]):
    """Reads what a request asks for, in whatever process; errors of samples travel back as values."""

    def __init__(
        self, samples: Samples[S], collate: Callable[[list[S], Tensor], Batch], *, seed: int, replace: bool
    ) -> None:
        self.samples = samples
        self.collate = collate
        self.seed = seed
        self.replace = replace

    def __getitem__(self, request: Request) -> _Fetched:
        broken: dict[str, str] = {}
        samples, ids = [], []
        for wanted in request.ids:
            for id in self._candidates(wanted, request.epoch):
                try:
                    samples.append(self.samples.get(id, seed=self.seed, epoch=request.epoch))
                    ids.append(id)
                    break
                except (BrokenSampleError, OSError) as error:
                    told = as_broken(error, id)
                    broken[told.name] = told.reason
            else:
                if self.replace:
                    return _Fetched(request=request, batch=None, broken=broken)
        batch = self.collate(samples, torch.tensor(ids)) if samples else None
        return _Fetched(request=request, batch=batch, broken=broken)

    def _candidates(self, wanted: int, epoch: int) -> Iterator[int]:
        yield wanted
        if self.replace:
            draw = Draw(seed=self.seed, update=epoch, ids=torch.tensor([wanted]), purpose=_REPLACE)
            yield from below(draw.bits(1, _TRIES, stream=0), len(self.samples))[0].tolist()


def _unchanged(value: Any) -> Any:
    return value
