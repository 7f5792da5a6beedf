"""Passes over requests that are read ahead, in whatever process, and a place that counts only what was handed out.

What loaders of ids and of streams have in common. Workers hold no state: each request says all that its batch needs,
and its place travels beside it, not through the workers. What cannot be read comes back as a value.
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

from d2v.core.data.broken import listing, nothing_readable, told
from d2v.core.model import Batch

_logger = logging.getLogger(__name__)
TRIES = 100  # if half of the files are broken, that many in a row are one in 10^30
S = TypeVar("S")
R = TypeVar("R")
State = dict[str, Any]


@frozen(kw_only=True)
class Fetched:
    """What became of a request; without a batch, `failed` tells how many samples in a row are broken."""

    batch: Batch | None
    broken: dict[str, str]
    failed: int = 0

    def pin_memory(self) -> "Fetched":
        """The same with its batch in pinned memory; `DataLoader` calls it."""
        return self if self.batch is None else evolve(self, batch=self.batch.pin_memory())


@frozen(kw_only=True)
class Entry(Generic[R]):
    """A request, the place behind its batch, and what to read instead where the whole batch is broken."""

    request: R
    after: State
    instead: Callable[[], Fetched] | None = None


class Prefetcher(ABC, Generic[R]):
    """Batches of the requests that are dealt out; see `Batches` for what is promised of a place.

    Args:
        fetch: reads a request; copied to the workers.
        deal: what to read from a place on. It must not hold the loader: a loader in a cycle of references is not given
            back at once, and its workers are then waited for.
        beginning: the place where a pass begins.
        endless: whether requests never end.
        num_workers: reading processes beside this one; 0 = read here.
    """

    def __init__(
        self,
        fetch: "Dataset[Fetched]",
        deal: Callable[[State], Iterator[Entry[R]]],
        *,
        beginning: State,
        endless: bool,
        num_workers: int,
    ) -> None:
        self.endless = endless
        self.broken: dict[str, str] = {}
        """What this process could not read so far: name to reason."""
        self._place = beginning
        self._is_set = False
        self._deal = deal
        self._pass = object()  # the present one
        self._requests: _Requests[R] = _Requests()
        self._loader: DataLoader[Fetched] = DataLoader(
            fetch,
            batch_size=None,
            sampler=self._requests,
            num_workers=num_workers,
            collate_fn=_unchanged,
            persistent_workers=num_workers > 0,
            # Without one of its own, every iteration would take a number from PyTorch's generator, and a resumed run
            # would differ from one that went through.
            generator=torch.Generator(),
        )

    def state_dict(self) -> State:
        """The place of the batch that comes next, as plain values."""
        return copy.deepcopy(self._place)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the place; raises `ValueError` where there is none such."""
        self._place = self._checked(state)
        self._is_set = True

    def __iter__(self) -> Iterator[Batch]:
        if not (self.endless or self._is_set):
            self._place = self._beginning()
        present = self._pass = object()
        is_whole, self._is_set = not self._is_set, False
        sent: deque[Entry[R]] = deque()
        self._requests.entries, self._requests.sent = self._deal(self._place), sent
        known, num_good, failed = len(self.broken), 0, 0
        # Only where this process uses a GPU already: asking for pinned memory would make it begin to.
        self._loader.pin_memory = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch does not type it
        try:
            for fetched in self._loader:
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
                        self._place = entry.after
                    yield fetched.batch
                    if self._pass is not present:
                        raise RuntimeError("another pass over these batches has begun; use one at a time")
                elif self.endless and failed >= TRIES:
                    raise nothing_readable(self.broken, self._num_samples())
            if is_whole and failed and not num_good:  # of a pass that is gone on with the good ones may lie behind
                raise nothing_readable(self.broken, self._num_samples())
            if not self._is_set:
                self._place = self._beginning()
        finally:
            if len(self.broken) > known:
                _logger.warning("%s", self.report())

    def report(self) -> str:
        """Count and list of the samples that could not be read; empty if all could."""
        return listing(self.broken, self._num_samples())

    @abstractmethod
    def _beginning(self) -> State:
        """Where a pass begins that is not told where."""

    @abstractmethod
    def _checked(self, state: Mapping[str, Any]) -> State:
        """A place in the form in which it is kept."""

    @abstractmethod
    def _num_samples(self) -> int | None:
        """Samples of the split, if that is known."""


def read_one(id: int, broken: dict[str, str], read: Callable[..., S], *args: Any, **options: Any) -> list[S]:
    """The sample that a call gives, or none, with its reason among the broken ones.

    Whatever goes wrong in reading one sample is that sample's: a long run must not end by it.
    """
    try:
        return [read(*args, **options)]
    except Exception as error:  # of memory as well: one file that fills it is that file's fault
        # The error itself is let go: its traceback holds the frames, and with them the loader.
        name, reason = told(error, id)
        broken[name] = reason
        return []


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
