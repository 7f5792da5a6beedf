"""Ctrl-C and SIGTERM as requests to stop after the current update."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


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


class StopRequest:
    """Context manager that records SIGINT and SIGTERM; a second signal has its usual effect.

    Outside the main thread Python cannot handle signals, and nothing is recorded.

    >>> with StopRequest() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.signum
    15
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _record(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None: not installed from Python, which cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
