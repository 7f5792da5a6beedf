"""Which rank the others wait for: every rank tells what it is doing, and one that waits too long names the others.

A thread of each rank writes into the store of the process group every few seconds. A rank that was stopped, or whose
machine is gone, becomes silent. One that is stuck still tells where. Training itself only sets an attribute.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Protocol

from attrs import define
from torch import distributed as dist

from d2v.core.train.ranks import world

_logger = logging.getLogger(__name__)

Doing = Literal["validating", "saving", "reading data", "computing"]
"""What a rank is doing, ordered: those that compute wait for those that do something before it."""
_ORDER: dict[str, int] = {"validating": 0, "saving": 1, "reading data": 2, "computing": 3}
_DEFAULT = 1800.0  # seconds: the default of `connected` and of gloo
_LONGEST, _SHORTEST = 10.0, 0.1  # seconds between two beats
_NAMED = 5  # ranks in a message
_NEVER_SEEN: Mapping[str, Any] = {"beats": 0, "step": -1, "doing": "reading data"}
_TIME_OUT = re.compile(r"timed out|time-?out", re.IGNORECASE)
_COLLECTIVE = re.compile(rf"gloo|NCCL|Connection (closed|reset)|{_TIME_OUT.pattern}", re.IGNORECASE)


class RankError(RuntimeError):
    """Another rank did not come in time, or has ended. Finished checkpoints are intact."""


class Progressing(Protocol):
    """What a rank tells the others."""

    step: int
    doing: Doing


class Heartbeat:
    """Context manager that tells the other ranks what this one is doing, and explains why it waits for them.

    While it waits, it logs the ranks that did not come, after half of the time and at its end. In one process it does
    nothing.

    Args:
        now: number of finished updates, and what the rank is doing; read by a thread.
        timeout: seconds that a rank waits for the others, which becomes that of the process group; None = the group's
            is not changed.

    Raises:
        RankError: at the end of the block, in place of an error of torch.distributed: the ranks that did not come,
            where they were last seen, and the key.
    """

    def __init__(self, now: Progressing, *, timeout: float | None = None) -> None:
        self._now, self.timeout = now, _DEFAULT if timeout is None else timeout
        self._limit = "the timeout of the process group" if timeout is None else f"train.timeout={timeout:g} seconds"
        self._interval = min(_LONGEST, max(_SHORTEST, self.timeout / 20))
        self._between_looks = max(3 * self._interval, self.timeout / 8)
        self._looked = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._others: dict[int, _Other] = {}
        if timeout is not None and world()[1] > 1:
            _set_timeout(timedelta(seconds=timeout))

    def __enter__(self) -> "Heartbeat":
        if world()[1] > 1:
            self._thread = threading.Thread(target=self._beat, args=(_own_store(self._interval),), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._thread is None:
            return
        self._thread.join(timeout=2 * self._interval)
        plain = type(error) is RuntimeError or isinstance(error, dist.DistError)
        if error is None or not plain or not _COLLECTIVE.search(str(error)):
            return
        rest = "the checkpoints are intact, and resume=true continues"
        if _TIME_OUT.search(str(error)):
            raise RankError(f"{self._missing()} did not come within {self._limit}; {rest}") from error
        raise RankError(f"another rank has ended, and its own message says why; {rest} ({error})") from error

    def _beat(self, store: Any) -> None:
        rank, workers = world()
        beats, said, place, since = 0, 0.0, self._place, time.monotonic()
        while beats == 0 or not self._ended.wait(self._interval):
            if (current := self._place) != place:  # not waiting: what is known of the others is out of date
                place, since, said = current, time.monotonic(), 0.0
                self._others = {}
            beats, waited = beats + 1, time.monotonic() - since
            told = {"beats": beats, "step": self._now.step, "doing": self._now.doing, "time": time.time()}
            with suppress(RuntimeError):  # the store may be gone, with the process that held it
                store.set(_key(rank), json.dumps(told))
                if waited > self.timeout / 4 and time.monotonic() - self._looked > self._between_looks:
                    self._look(store, rank, workers)
            for share, level in ((0.5, logging.WARNING), (1.0, logging.ERROR)):
                if waited >= share * self.timeout and said < share and self._is_waiting():
                    said = share
                    _logger.log(level, "rank %d has waited %.0f s for the others: %s", rank, waited, self._missing())

    def _look(self, store: Any, rank: int, workers: int) -> None:
        """Read what the other ranks told last."""
        known = [other for other in range(workers) if other != rank]
        self._looked = time.monotonic()
        if not store.check([_key(other) for other in known]):
            self._others = {other: _Other(told=_NEVER_SEEN, seen=0.0) for other in known} | self._others
            known = [other for other in known if store.check([_key(other)])]  # waiting for the rest would block
        for other, text in zip(known, store.multi_get([_key(other) for other in known]), strict=True):
            told = json.loads(text)
            before = self._others.get(other)
            if before is None or before.told["beats"] != told["beats"]:
                self._others[other] = _Other(told=told, seen=self._looked)

    def _is_waiting(self) -> bool:
        """Whether other ranks are behind this one, or silent."""
        return any(self._is_silent(other) or other.place < self._place for other in self._others.values())

    def _missing(self) -> str:
        """The ranks that the others wait for."""
        silent = {rank: other for rank, other in self._others.items() if self._is_silent(other)}
        behind = {rank: other for rank, other in self._others.items() if other.place < self._place}
        found = sorted((silent or behind).items())
        if not found:
            return "another rank, all of which show signs of life in the same update,"
        names = [f"rank {rank} ({other.text(silent=rank in silent)})" for rank, other in found[:_NAMED]]
        return ", ".join(names) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")

    def _is_silent(self, other: "_Other") -> bool:
        return self._looked - other.seen >= self._between_looks

    @property
    def _place(self) -> tuple[int, int]:
        return self._now.step, _ORDER[self._now.doing]


@define
class _Other:
    """What another rank told last, and when that was read."""

    told: Mapping[str, Any]
    seen: float

    @property
    def place(self) -> tuple[int, int]:
        return self.told["step"], _ORDER[self.told["doing"]]

    def text(self, *, silent: bool) -> str:
        if self.told is _NEVER_SEEN:
            return "never seen"
        doing, step = self.told["doing"], self.told["step"]
        # Not "of update": within an update, the data of the next one is read.
        where = {"computing": f"computing update {step + 1}", "reading data": f"reading data in update {step + 1}"}
        place = where.get(doing, f"{doing} after update {step}")
        return f"last seen {time.time() - self.told['time']:.0f} s ago, {place}" if silent else f"alive, {place}"


def _key(rank: int) -> str:
    return f"heartbeat-{rank}"


def _own_store(interval: float) -> Any:
    """The store of the process group, over a new connection if it can have several, so that no other thread waits."""
    store: Any = dist.distributed_c10d._get_default_store()
    with suppress(RuntimeError, NotImplementedError, AttributeError):
        store = store.clone()
        store.set_timeout(timedelta(seconds=max(1.0, interval)))
    return store


def _set_timeout(timeout: timedelta) -> None:
    found: Callable[[timedelta], None] = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    found(timeout)
