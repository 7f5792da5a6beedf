"""Progress of a training or a pass: a bar on a terminal and in a notebook, a line per minute elsewhere."""

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol, TextIO

_SHOWN = {"loss": "loss", "target_var": "target var", "pred_var": "pred var", "decay": "decay"}
_BAR = 16  # columns
_CLEAR = "\r\x1b[K"


class Progress:
    """Shows rate, time left, loss, variances, decay and the fraction of time spent waiting for data.

    On a terminal and in a notebook it is one line with a bar that is redrawn, cut to the width of the terminal.
    Elsewhere, for example in a log file, it is a line per minute and one at the end; a pass without metrics that takes
    less than a minute writes none.

    Args:
        total: number of updates of the run.
        stream: output stream; None = the notebook if the code runs in one, otherwise standard error.

    >>> progress = Progress(100, stream=sys.stdout)
    >>> progress.start(0)
    >>> progress.line(50, rate=10.0, metrics={"loss": 0.25, "data_wait": 0.5})
    'step 50/100  10.0/s  0:00:05 left  loss 0.25  waiting for data 50%'
    """

    def __init__(self, total: int, *, stream: TextIO | None = None) -> None:
        self.total = total
        self._outlet = _outlet(stream)
        self._metrics: Mapping[str, float] = {}
        self._first = (0, 0.0)
        self._due = 0.0
        self._step = 0
        self._shown: int | None = None

    def start(self, step: int) -> None:
        """Start after `step` finished updates."""
        now = time.monotonic()
        self._first, self._step = (step, now), step
        self._due = now if self._outlet.redraws else now + self._outlet.every

    def advance(self, step: int) -> None:
        """Count a finished update."""
        self._step = step
        if step < self.total and time.monotonic() >= self._due:  # `close` shows the last one, with its metrics
            self._show()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Set the metrics to show from now on."""
        self._metrics = metrics

    def close(self) -> None:
        """Show the final state."""
        is_needed = bool(self._metrics) or self._shown is not None
        if self._outlet.redraws or (is_needed and self._shown != self._step):
            self._show()
        self._outlet.end()

    def line(self, step: int, *, rate: float, metrics: Mapping[str, float]) -> str:
        """Return the line for a step, for a rate in updates per second."""
        parts = [f"step {step}/{self.total}"]
        if rate > 0:
            left = timedelta(seconds=round((self.total - step) / rate))
            parts += [f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each", f"{left} left"]
        parts += [f"{shown} {metrics[name]:.4g}" for name, shown in _SHOWN.items() if name in metrics]
        if "data_wait" in metrics:
            parts.append(f"waiting for data {metrics['data_wait']:.0%}")
        return "  ".join(parts)

    def _show(self) -> None:
        line = self.line(self._step, rate=self._rate(self._step), metrics=self._metrics)
        self._outlet.show(line, self._step / self.total)
        self._shown, self._due = self._step, time.monotonic() + self._outlet.every

    def _rate(self, step: int) -> float:
        first, since = self._first
        return (step - first) / max(time.monotonic() - since, 1e-9)


class _Outlet(Protocol):
    """Output of progress lines, at most one every `every` seconds; `redraws`: a line replaces the previous one."""

    redraws: bool
    every: float

    def show(self, line: str, fraction: float) -> None: ...
    def end(self) -> None: ...


class _Terminal:
    redraws, every = True, 0.2

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, line: str, fraction: float) -> None:
        self._stream.write(_CLEAR + fitting(f"{bar(fraction)}  {line}", _columns(self._stream)))
        self._stream.flush()

    def end(self) -> None:
        self._stream.write("\n")


class _File:
    redraws, every = False, 60.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, line: str, fraction: float) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def end(self) -> None:
        pass


class _Notebook:
    redraws, every = True, 0.5

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None

    def show(self, line: str, fraction: float) -> None:
        drawn = {
            "text/plain": f"{bar(fraction)}  {line}",
            "text/html": f'<progress value="{fraction:.4f}"></progress> <code>{line}</code>',
        }
        if self._handle is None:
            self._handle = self._display(drawn, raw=True, display_id=True)
        else:
            self._handle.update(drawn, raw=True)

    def end(self) -> None:
        pass


def _outlet(stream: TextIO | None) -> _Outlet:
    # In a notebook IPython is already imported and its shell has a kernel; a script does not need the import.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None or stream is not None else ipython.get_ipython()
    if hasattr(shell, "kernel"):
        return _Notebook(importlib.import_module("IPython.display").display)
    stream = sys.stderr if stream is None else stream
    return _Terminal(stream) if stream.isatty() else _File(stream)


def bar(fraction: float) -> str:
    """Draw a fraction as a bar.

    >>> bar(0.5)
    '########--------'
    """
    full = int(_BAR * min(fraction, 1.0))
    return "#" * full + "-" * (_BAR - full)


def fitting(line: str, columns: int) -> str:
    """Cut a line to the columns, at double spaces; a wrapped line could not be erased.

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
