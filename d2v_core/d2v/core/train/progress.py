"""One line that says how far the training is."""

import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TextIO

_SHOWN = {"loss": "loss", "target_var": "target var", "pred_var": "pred var", "decay": "decay"}
_EVERY = 0.2  # seconds between two drawings
_BAR = 16  # columns
_CLEAR = "\r\x1b[K"


class Progress:
    """Rate, time left, loss, variances, decay and the fraction of time spent waiting for data.

    On a terminal it is one line with a bar, drawn anew and as long as fits; elsewhere a line at each logging interval.

    Args:
        total: updates of the run.
        stream: where it is written; None = standard error.

    >>> progress = Progress(100, stream=sys.stdout)
    >>> progress.start(0)
    >>> progress.line(50, rate=10.0, metrics={"loss": 0.25, "data_wait": 0.5})
    'step 50/100  10.0/s  0:00:05 left  loss 0.25  waiting for data 50%'
    """

    def __init__(self, total: int, *, stream: TextIO | None = None) -> None:
        self.total = total
        self._stream = sys.stderr if stream is None else stream
        self._metrics: Mapping[str, float] = {}
        self._first = (0, 0.0)
        self._drawn = 0.0
        self._step = 0

    def start(self, step: int) -> None:
        """Begin after `step` finished updates."""
        self._first = step, time.monotonic()
        self._step = step

    def advance(self, step: int) -> None:
        """An update is finished."""
        now, self._step = time.monotonic(), step
        if self._stream.isatty() and now - self._drawn > _EVERY:
            self._drawn = now
            line = self.line(step, rate=self._rate(step), metrics=self._metrics)
            self._stream.write(_CLEAR + fitting(f"{bar(step / self.total)}  {line}", _columns(self._stream)))
            self._stream.flush()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take what is shown from now on."""
        self._metrics = metrics
        if not self._stream.isatty():
            self._stream.write(f"{self.line(step, rate=self._rate(step), metrics=metrics)}\n")
            self._stream.flush()

    def close(self) -> None:
        """Leave the last line standing."""
        if self._stream.isatty():
            self._drawn = 0.0
            self.advance(self._step)
            self._stream.write("\n")

    def line(self, step: int, *, rate: float, metrics: Mapping[str, float]) -> str:
        """The line for a step at a rate in updates a second."""
        parts = [f"step {step}/{self.total}"]
        if rate > 0:
            left = timedelta(seconds=round((self.total - step) / rate))
            parts += [f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each", f"{left} left"]
        parts += [f"{shown} {metrics[name]:.4g}" for name, shown in _SHOWN.items() if name in metrics]
        if "data_wait" in metrics:
            parts.append(f"waiting for data {metrics['data_wait']:.0%}")
        return "  ".join(parts)

    def _rate(self, step: int) -> float:
        first, since = self._first
        return (step - first) / max(time.monotonic() - since, 1e-9)


def bar(fraction: float) -> str:
    """A fraction of the whole as a bar.

    >>> bar(0.5)
    '########--------'
    """
    full = int(_BAR * min(fraction, 1.0))
    return "#" * full + "-" * (_BAR - full)


def fitting(line: str, columns: int) -> str:
    """As many parts of a line, divided by two blanks, as fit; a line that wraps would not be erased.

    >>> fitting("step 50/100  10.0/s  0:00:05 left", 20)
    'step 50/100  10.0/s'
    """
    parts = line.split("  ")
    while len(parts) > 1 and len("  ".join(parts)) >= columns:
        parts.pop()
    return "  ".join(parts)[: max(columns - 1, 1)]


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
