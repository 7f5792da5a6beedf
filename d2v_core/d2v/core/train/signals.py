"""Ctrl-C and SIGTERM as a wish to stop, which the loop grants after the update that it is in."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A signal ended the training; what was finished is saved.

    Args:
        signum: of the signal: 2 for Ctrl-C, 15 for SIGTERM; a command exits with 128 + signum. None = another rank's.
        step: finished updates.
    """

    def __init__(self, signum: int | None, step: int) -> None:
        self.signum = signum
        self.step = step
        super().__init__(f"stopped after {step} updates; resume=true goes on from there")


class StopRequest:
    """Notes SIGINT and SIGTERM while it is entered; a second one acts as if nobody noted it.

    Outside the main thread Python has no say over signals, and nothing is noted.

    >>> with StopRequest() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.signum
    15
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            # None: installed by something other than Python, which cannot put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._former = {}
