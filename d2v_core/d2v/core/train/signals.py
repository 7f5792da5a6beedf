"""Ctrl-C and SIGTERM as requests to stop after the current update, or the current batch of a validation."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch

from d2v.core.train.ranks import sum_over_ranks

T = TypeVar("T")
# Ctrl-C, and a scheduler that stops a job step, reach torchrun and its processes, and torchrun passes it on to them.
_PASSED_ON = 2.0  # seconds


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal ended the training; the finished updates are saved.

    Args:
        signum: number of the signal: 2 for Ctrl-C, 15 for SIGTERM; a command exits with 128 + signum. None = another
            rank received it.
        step: number of finished updates.
    """

    def __init__(self, signum: int | None, step: int) -> None:
        self.signum = signum
        self.step = step
        super().__init__(f"stopped after {step} updates; continue with resume=true")


class ValidationStopped(Exception):  # noqa: N818 - not an error
    """A signal ended a validation, on all ranks.

    Args:
        signum: as in `Interrupted`.
    """

    def __init__(self, signum: int | None) -> None:
        self.signum = signum
        super().__init__("the validation was stopped")


class StopRequest:
    """Context manager that records SIGINT and SIGTERM; a second signal has its usual effect, and ends the process.

    Below torchrun, the same request arrives twice if it is sent to the whole group of processes: signals within 2
    seconds count as one. Outside the main thread Python cannot handle signals, and nothing is recorded.

    >>> with StopRequest() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.signum
    15
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._at = 0.0

    def __enter__(self) -> "StopRequest":
        _current.append(self)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _current.remove(self)
        self._restore()

    def _record(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self._at = signum, time.monotonic()
            if "TORCHELASTIC_RUN_ID" not in os.environ:
                self._restore()
        elif time.monotonic() - self._at > _PASSED_ON:
            self._restore()
            signal.raise_signal(signum)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None: not installed from Python, which cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}


_current: list[StopRequest] = []


def until_stopped(batches: Iterable[T], device: torch.device) -> Iterator[T]:
    """Yield the batches of a validation; the pass ends early if a signal asks this rank to stop.

    Args:
        batches: of this rank; all ranks take part.
        device: device on which the ranks exchange whether to stop.

    Raises:
        ValidationStopped: at the end of the pass, on all ranks, if any was asked to stop.

    >>> list(until_stopped([1, 2], torch.device("cpu")))
    [1, 2]
    """
    stop = _current[-1] if _current else StopRequest()
    for batch in batches:
        if stop.signum is not None:
            break
        yield batch
    if _current and sum_over_ranks([int(stop.signum is not None)], device)[0]:
        raise ValidationStopped(stop.signum)
