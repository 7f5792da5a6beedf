"""A stream of samples as batches, for data that cannot be entered by number: shards, archives, generators.

The stream keeps its place itself, in torchdata's words. It is read in this process, in order; what is costly about a
sample (decoding, augmentation) is a function that runs in workers.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor
from torch.utils.data import Dataset

from d2v.core.data.broken import DataError
from d2v.core.data.draws import Purpose
from d2v.core.data.identity import Identity, identity_of
from d2v.core.data.permutation import KeyedPermutation
from d2v.core.data.plan import check_rank
from d2v.core.data.prefetch import Entry, Fetched, Prefetcher, State, read_one
from d2v.core.model import Batch
from d2v.core.validators import check

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Stream(Protocol[T_co]):
    """Records in an order that follows from its state alone, the same on all ranks.

    It may also have a method `identity()`, which records these are, as an `Identity`; without one a run cannot notice
    that it is resumed on others.
    """

    def __iter__(self) -> Iterator[T_co]:
        """One pass, from the place that was loaded last, else from where the last pass ended: at the beginning.

        An error in here ends the run: what may fail for one sample belongs into the loader's `read`.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The place behind the record that was given last, as plain values.

        At the end of a pass it leads to the beginning of the next one, which may be in another order: the stream counts
        its passes.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the place from which the next iteration starts."""
        ...


class StreamLoader(Prefetcher["_Records"], Generic[T]):
    """Yields the batches of a stream: `Batches` without a `len`, as their number is not known.

    All ranks read the whole stream; rank r takes every `world_size`-th record, from the r-th on, so the place is the
    same on all. The id of a sample is its number in the pass, counted over all ranks. Broken samples are left out. For
    training (`endless`) pass follows pass and what makes no whole batch on all ranks at the end of one is dropped;
    where all of a rank's batch is broken, one sample of another rank's stands in, so that no rank waits for it.

    With `shuffle` whole windows of about so many records are read and permuted by (seed, epoch, window). A window is
    read again when a run goes on inside it: no record is ever saved. `state_dict()` is the number of the pass, of the
    window and of the batch in it, and the stream's state where the window begins.

    Args:
        stream: of records, anything that can be pickled.
        collate: samples and their ids, Long `b`, to a `Batch`; runs in workers.
        batch_size: samples in a batch of this rank.
        read: makes a sample of a record: `read(record, id, seed=seed, epoch=epoch)`; runs in workers, any exception
            counts the sample as broken. None = records are samples.
        seed: of the run.
        endless: for training, see above; else one pass.
        shuffle: records of all ranks in a window; 0 = in order.
        num_workers: processes that make samples of records, beside this one; 0 = this one.
        rank: of this process.
        world_size: processes that share the stream.

    Raises:
        ValueError: if a number is out of its range.
        DataError: while iterating, if the stream holds less than a batch for each rank, or nothing can be read.

    >>> class Countdown:
    ...     place = 0
    ...     def __iter__(self):
    ...         while self.place < 5:
    ...             self.place += 1
    ...             yield torch.tensor([5.0 - self.place])
    ...         self.place = 0
    ...     def state_dict(self):
    ...         return {"place": self.place}
    ...     def load_state_dict(self, state):
    ...         self.place = state["place"]
    >>> def collate(samples, ids):
    ...     return Batch(source=torch.stack(samples), ids=ids)
    >>> loader = StreamLoader(Countdown(), collate, batch_size=2, endless=False)
    >>> [batch.source.flatten().tolist() for batch in loader]
    [[4.0, 3.0], [2.0, 1.0], [0.0]]
    """

    def __init__(
        self,
        stream: Stream[T],
        collate: Callable[[list[Any], Tensor], Batch],
        *,
        batch_size: int,
        read: Callable[..., Any] | None = None,
        seed: int = 0,
        endless: bool = True,
        shuffle: int = 0,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check(ge(1), batch_size=batch_size)
        check(ge(0), shuffle=shuffle)
        check_rank(rank, world_size)
        self.stream = stream
        self._start: State = {"epoch": 0, "window": 0, "batch": 0, "stream": copy.deepcopy(stream.state_dict())}
        fetch = _Fetch(read, collate, seed)
        dealer = _Dealer(stream, fetch, seed, endless, shuffle, rank, world_size, batch_size * world_size)
        super().__init__(fetch, dealer.entries, beginning=self._start, endless=endless, num_workers=num_workers)

    def identity(self) -> Identity | None:
        """Which records these are, as the stream says it."""
        return identity_of(self.stream)

    def restart(self, state: Mapping[str, Any]) -> None:
        """Set the stream to its beginning, in the pass after that of a place."""
        self.load_state_dict({**self._start, "epoch": state["epoch"] + 1})

    def name(self, id: int) -> str:
        """The sample's number in its pass."""
        return f"sample {id}"

    def _beginning(self) -> State:
        return self._start

    def _checked(self, state: Mapping[str, Any]) -> State:
        if state.keys() != self._start.keys():
            raise ValueError(f"the state of a stream has {sorted(self._start)}, not {sorted(state)}")
        return copy.deepcopy(dict(state))

    def _num_samples(self) -> None:
        return None


@frozen
class _Records:
    epoch: int
    pairs: list[tuple[int, Any]]


class _Fetch(Dataset[Fetched]):
    """Makes a batch of records."""

    def __init__(
        self, read: Callable[..., Any] | None, collate: Callable[[list[Any], Tensor], Batch], seed: int
    ) -> None:
        self.read, self.collate, self.seed = read, collate, seed

    def __getitem__(self, request: _Records) -> Fetched:
        return self._first(len(request.pairs), request)

    def _first(self, most: int, request: _Records) -> Fetched:
        broken: dict[str, str] = {}
        samples: list[Any] = []
        ids: list[int] = []
        for id, record in request.pairs:
            found = read_one(id, broken, self._sample, record, id, request.epoch)
            samples.extend(found)
            ids.extend([id] * len(found))
            if len(samples) == most:
                break
        batch = self.collate(samples, torch.tensor(ids)) if samples else None
        return Fetched(batch=batch, broken=broken, failed=0 if samples else len(request.pairs))

    def first_of(self, request: _Records | None) -> Callable[[], Fetched] | None:
        """What reads the first sample of a request that is not broken."""
        return None if request is None else partial(self._first, 1, request)

    def _sample(self, record: Any, id: int, epoch: int) -> Any:
        return record if self.read is None else self.read(record, id, seed=self.seed, epoch=epoch)


@frozen(eq=False)
class _Dealer(Generic[T]):
    """Deals out the stream; `whole` is the size of a batch of all ranks together."""

    stream: Stream[T]
    fetch: _Fetch
    seed: int
    endless: bool
    shuffle: int
    rank: int
    world_size: int
    whole: int

    @property
    def window(self) -> int:
        return max(1, round(self.shuffle / self.whole)) * self.whole

    def entries(self, place: State) -> Iterator[Entry[_Records]]:
        self.stream.load_state_dict(copy.deepcopy(place["stream"]))
        while True:
            yield from self._one_pass(place)
            if not self.endless:
                return
            place = self._at(place["epoch"] + 1, 0, 0)

    def _one_pass(self, place: State) -> Iterator[Entry[_Records]]:
        epoch, is_whole, num_batches = place["epoch"], place["window"] == place["batch"] == 0, 0
        records = iter(self.stream)
        while held := list(islice(records, self.window)):
            after = self._at(epoch, place["window"] + 1, 0)
            for request, others, following in self._batches(held, place, after):
                num_batches += 1
                yield Entry(request=request, after=following, instead=self.fetch.first_of(others))
            place = after
        if self.endless and is_whole and not num_batches:
            raise DataError(f"the stream holds less than a batch for each rank ({self.whole} samples together)")

    def _batches(self, held: list[T], place: State, after: State) -> Iterator[tuple[_Records, _Records | None, State]]:
        epoch, window = place["epoch"], place["window"]
        order: Any = range(len(held))
        if self.shuffle:
            order = KeyedPermutation(len(held), seed=self.seed, epoch=epoch, purpose=Purpose.WINDOW, stream=window)
            order = order[torch.arange(len(held))].tolist()
        numbered = [(window * self.window + i, held[i]) for i in order]
        cuts = range(0, len(held) - self.whole + 1 if self.endless else len(held), self.whole)
        for batch, low in enumerate(cuts):
            of_all = numbered[low : low + self.whole]
            own = of_all[self.rank :: self.world_size]
            if batch < place["batch"] or not own:
                continue
            # Behind a window that the stream's end has cut short, the stream's state is already that of the next pass.
            is_left = low + self.whole == self.window == len(held)
            following = after if is_left else {**place, "batch": batch + 1}
            others = [pair for i, pair in enumerate(of_all) if i % self.world_size != self.rank]
            yield _Records(epoch, own), _Records(epoch, others) if self.endless and others else None, following

    def _at(self, epoch: int, window: int, batch: int) -> State:
        return {"epoch": epoch, "window": window, "batch": batch, "stream": copy.deepcopy(self.stream.state_dict())}
