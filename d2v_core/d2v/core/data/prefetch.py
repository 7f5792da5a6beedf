"""Common base of the loaders: reads batches ahead, and tracks the position of the batches that were yielded.

Workers hold no state: a request contains everything that its batch needs. Its position stays in this process and does
not pass through the workers. Read errors are returned as values.
"""

import copy
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch
from attrs import evolve, frozen
from torch.utils.data import DataLoader, Dataset, Sampler

from d2v.core.data.broken import error_reason, listing, nothing_readable
from d2v.core.data.dead_workers import dead_workers_named
from d2v.core.data.workers import forking
from d2v.core.model import Batch

_logger = logging.getLogger(__name__)
TRIES = 100  # with half of the files broken, the chance of this many in a row is 1 in 10^30
S = TypeVar("S")
R = TypeVar("R")
State = dict[str, Any]


@frozen(kw_only=True)
class Fetched:
    """Result of a request; without a batch, `failed` is the number of broken samples in a row."""

    batch: Batch | None
    broken: dict[str, str]
    failed: int = 0

    def pin_memory(self) -> "Fetched":
        """Return the result with its batch in pinned memory; called by `DataLoader`."""
        return self if self.batch is None else evolve(self, batch=self.batch.pin_memory())


@frozen(kw_only=True)
class Entry(Generic[R]):
    """A request, the position after its batch, and what to read instead if the whole batch is broken."""

    request: R
    after: State
    instead: Callable[[], Fetched] | None = None


class Prefetcher(ABC, Generic[R]):
    """Batches of a sequence of requests; see `Batches` for the guarantees about positions.

    Args:
        fetch: reads a request; copied to the workers.
        entries: function from a position to the requests that follow it. It must not reference the loader: a loader in
            a reference cycle is not freed immediately, and the process then waits for its workers.
        beginning: position at which a pass begins.
        endless: whether requests never end.
        num_workers: number of worker processes; 0 = read in this process.
    """

    def __init__(
        self,
        fetch: "Dataset[Fetched]",
        entries: Callable[[State], Iterator[Entry[R]]],
        *,
        beginning: State,
        endless: bool,
        num_workers: int,
    ) -> None:
        self.endless = endless
        self.broken: dict[str, str] = {}
        """Samples that this process could not read so far: name to reason."""
        self._position = beginning
        self._is_set = False
        self._entries = entries
        self._pass = object()  # identifies the current pass
        self._requests: _Requests[R] = _Requests()
        self._loader: DataLoader[Fetched] = DataLoader(
            fetch,
            batch_size=None,
            sampler=self._requests,
            num_workers=num_workers,
            collate_fn=_unchanged,
            persistent_workers=num_workers > 0,
            # Without a separate generator, every iteration would draw a number from PyTorch's default generator, and a
            # resumed run would differ from an uninterrupted one.
            generator=torch.Generator(),
        )

    def state_dict(self) -> State:
        """Position of the next batch, as plain values."""
        return copy.deepcopy(self._position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the position; raises `ValueError` if there is no such position."""
        self._position = self._checked(state)
        self._is_set = True

    def __iter__(self) -> Iterator[Batch]:
        if not (self.endless or self._is_set):
            self._position = self._beginning()
        current = self._pass = object()
        is_whole, self._is_set = not self._is_set, False
        sent: deque[Entry[R]] = deque()
        self._requests.entries, self._requests.sent = self._entries(self._position), sent
        known, num_good, failed = len(self.broken), 0, 0
        # Only if this process already uses a GPU: requesting pinned memory would initialise CUDA.
        self._loader.pin_memory = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch does not type it
        with forking():
            results = iter(self._loader)
        try:
            for fetched in _watched(results):
                entry = sent.popleft()
                self.broken.update(fetched.broken)
                failed += fetched.failed
                if fetched.batch is None and entry.instead is not None:
                    fetched = entry.instead()
                    self.broken.update(fetched.broken)
                    failed += fetched.failed
                if fetched.batch is not None:
                    num_good, failed = num_good + 1, 0
                    if not self._is_set:
                        self._position = entry.after
                    yield fetched.batch
                    if self._pass is not current:
                        raise RuntimeError("another pass over these batches has begun; use one at a time")
                elif self.endless and failed >= TRIES:
                    raise nothing_readable(self.broken, self._num_samples())
            if is_whole and failed and not num_good:  # in a resumed pass, the good samples may come before the position
                raise nothing_readable(self.broken, self._num_samples())
            if not self._is_set:
                self._position = self._beginning()
        finally:
            if len(self.broken) > known:
                _logger.warning("%s", self.report())

    def report(self) -> str:
        """Number and list of the samples that could not be read; empty if there are none."""
        return listing(self.broken, self._num_samples())

    @abstractmethod
    def _beginning(self) -> State:
        """Position at which a pass begins if none was set."""

    @abstractmethod
    def _checked(self, state: Mapping[str, Any]) -> State:
        """Check a position and return it in the form in which it is stored."""

    @abstractmethod
    def _num_samples(self) -> int | None:
        """Number of samples of the split, if known."""


def read_one(id: int, broken: dict[str, str], read: Callable[..., S], *args: Any, **options: Any) -> list[S]:
    """Return the sample that a call returns in a list, or an empty list and add the reason to `broken`.

    An error of any kind while reading one sample must not end a long run.
    """
    try:
        return [read(*args, **options)]
    except Exception as error:  # includes MemoryError, which a single file can cause
        # Do not keep the error itself: its traceback references the frames, and through them the loader.
        name, reason = error_reason(error, id)
        broken[name] = reason
        return []


def _watched(results: Iterator[Fetched]) -> Iterator[Fetched]:
    with dead_workers_named():
        yield from results


class _Requests(Sampler[R]):
    entries: Iterator[Entry[R]]
    sent: deque[Entry[R]]

    def __iter__(self) -> Iterator[R]:
        entries, sent = self.entries, self.sent
        for entry in entries:
            sent.append(entry)
            yield entry.request


def _unchanged(value: Any) -> Any:
    return value
