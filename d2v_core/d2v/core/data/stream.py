"""Batches of a stream of samples, for data without random access: shards, archives, generators.

The stream saves and restores its own position (`state_dict`, `load_state_dict`, as in torchdata). It is read in this
process, in order. Costly steps (decoding, augmentation) are a function that runs in workers.
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
    """Records in an order that depends only on the stream's state, the same on all ranks.

    Optional method: `identity()`, the `Identity` of the records; without it a run cannot notice that it is resumed on
    other records.
    """

    def __iter__(self) -> Iterator[T_co]:
        """Make one pass from the position that was loaded last, otherwise from the beginning.

        An error in here ends the run: code that may fail for one sample belongs in the loader's `read`.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Position after the last record that was yielded, as plain values.

        At the end of a pass it is the beginning of the next pass. Passes may differ in order: the stream counts them.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the position from which the next iteration starts."""
        ...


class StreamLoader(Prefetcher["_Records"], Generic[T]):
    """Loader of the batches of a stream; implements `Batches` without `len`, as the number of batches is unknown.

    All ranks read the whole stream and rank r takes every `world_size`-th record, starting at the r-th, so all ranks
    have the same position. The id of a sample is its number in the pass, counted over all ranks. Broken samples are
    left out. With `endless`, for training, passes follow each other, and records at the end of a pass that do not fill
    a batch on all ranks are dropped. If all samples of a rank's batch are broken, it uses one sample of another rank
    instead, so that no rank has to wait.

    With `shuffle`, windows of about that many records are read and permuted by (seed, epoch, window). A run that
    resumes inside a window reads it again; no record is saved. `state_dict()` holds the number of the pass, of the
    window and of the batch in it, and the stream's state at the beginning of the window.

    Args:
        stream: stream of picklable records.
        collate: function from samples and their ids, Long `b`, to a `Batch`; runs in workers.
        batch_size: samples per batch on this rank.
        read: function from a record to a sample, `read(record, id, seed=seed, epoch=epoch)`; runs in workers, and any
            exception marks the sample as broken. None = records are samples.
        seed: seed of the run.
        endless: True = passes follow each other without end, for training; False = one pass.
        shuffle: size of a window in records of all ranks; 0 = in order.
        num_workers: number of worker processes; 0 = make samples in this process.
        rank: rank of this process.
        world_size: number of processes that share the stream.

    Raises:
        ValueError: if a number is out of range.
        DataError: while iterating, if the stream holds less than a batch for each rank, or nothing can be read.

    >>> class Countdown:
    ...     done = 0
    ...     def __iter__(self):
    ...         while self.done < 5:
    ...             self.done += 1
    ...             yield torch.tensor([5.0 - self.done])
    ...         self.done = 0
    ...     def state_dict(self):
    ...         return {"done": self.done}
    ...     def load_state_dict(self, state):
    ...         self.done = state["done"]
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
        cutter = _Cutter(stream, fetch, seed, endless, shuffle, rank, world_size, batch_size * world_size)
        super().__init__(fetch, cutter.entries, beginning=self._start, endless=endless, num_workers=num_workers)

    def identity(self) -> Identity | None:
        """Identity of the records, as given by the stream."""
        return identity_of(self.stream)

    def continued(self, state: Mapping[str, Any], *, before: int) -> State:
        """Refuse to continue a pass on another number of processes: its windows hold whole batches of all of them.

        Raises:
            DataError: always, except at the beginning of the stream.
        """
        if state == self._start:
            return dict(state)
        raise DataError(
            f"a stream that was read by {before} process(es) cannot be continued by another number; use {before} again"
        )

    def restart(self, state: Mapping[str, Any]) -> None:
        """Move to the beginning of the stream, in the pass after that of `state`."""
        self.load_state_dict({**self._start, "epoch": state["epoch"] + 1})

    def name(self, id: int) -> str:
        """Name of a sample: its number in the pass."""
        return f"sample {id}"

    def _beginning(self) -> State:
        return self._start

    def _checked(self, state: Mapping[str, Any]) -> State:
        if state.keys() != self._start.keys():
            raise ValueError(f"the state of a stream must have the keys {sorted(self._start)}, not {sorted(state)}")
        return copy.deepcopy(dict(state))

    def _num_samples(self) -> None:
        return None


@frozen
class _Records:
    epoch: int
    pairs: list[tuple[int, Any]]


class _Fetch(Dataset[Fetched]):
    """Makes a batch from records."""

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
        """Function that reads the first sample of a request that is not broken."""
        return None if request is None else partial(self._first, 1, request)

    def _sample(self, record: Any, id: int, epoch: int) -> Any:
        return record if self.read is None else self.read(record, id, seed=self.seed, epoch=epoch)


@frozen(eq=False)
class _Cutter(Generic[T]):
    """Cuts the stream into batches; `whole` is the size of a global batch."""

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

    def entries(self, position: State) -> Iterator[Entry[_Records]]:
        self.stream.load_state_dict(copy.deepcopy(position["stream"]))
        while True:
            yield from self._one_pass(position)
            if not self.endless:
                return
            position = self._at(position["epoch"] + 1, 0, 0)

    def _one_pass(self, position: State) -> Iterator[Entry[_Records]]:
        epoch, is_whole, num_batches = position["epoch"], position["window"] == position["batch"] == 0, 0
        records = iter(self.stream)
        while held := list(islice(records, self.window)):
            after = self._at(epoch, position["window"] + 1, 0)
            for request, others, following in self._batches(held, position, after):
                num_batches += 1
                yield Entry(request=request, after=following, instead=self.fetch.first_of(others))
            position = after
        if self.endless and is_whole and not num_batches:
            raise DataError(f"the stream holds less than a batch for each rank ({self.whole} samples together)")

    def _batches(
        self, held: list[T], position: State, after: State
    ) -> Iterator[tuple[_Records, _Records | None, State]]:
        epoch, window = position["epoch"], position["window"]
        order: Any = range(len(held))
        if self.shuffle:
            order = KeyedPermutation(len(held), seed=self.seed, epoch=epoch, purpose=Purpose.WINDOW, stream=window)
            order = order[torch.arange(len(held))].tolist()
        numbered = [(window * self.window + i, held[i]) for i in order]
        cuts = range(0, len(held) - self.whole + 1 if self.endless else len(held), self.whole)
        for batch, low in enumerate(cuts):
            of_all = numbered[low : low + self.whole]
            own = of_all[self.rank :: self.world_size]
            if batch < position["batch"] or not own:
                continue
            # After a window that the end of the stream cut short, the stream's state is already that of the next pass.
            is_end = low + self.whole == self.window == len(held)
            following = after if is_end else {**position, "batch": batch + 1}
            others = [pair for i, pair in enumerate(of_all) if i % self.world_size != self.rank]
            yield _Records(epoch, own), _Records(epoch, others) if self.endless and others else None, following

    def _at(self, epoch: int, window: int, batch: int) -> State:
        return {"epoch": epoch, "window": window, "batch": batch, "stream": copy.deepcopy(self.stream.state_dict())}
