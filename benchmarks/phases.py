"""Seconds of the phases of the library's training step, measured by functions around its parts.

Accelerators are waited for after each phase, so the sum is more than the time of a step there.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from d2v.core import Data2Vec

PHASES = ("front", "mask", "gather", "student", "decoder", "teacher", "targets", "loss")
PHASES += ("backward", "optimiser", "average")


class Phases:
    """Seconds by phase of the steps of a model that was watched.

    "gather" includes positions and context blocks, "decoder" putting the visible outputs back. A part inside
    another one counts for the outer one, except targets, which are computed while the teacher runs.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._watching = False
        self._clock = clock
        self._open: list[list[Any]] = []  # name and seconds of what ran inside

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        if not self._watching or (self._open and name != "targets"):
            yield
            return
        self._open.append([name, 0.0])
        start = self._now()
        try:
            yield
        finally:
            spent = self._now() - start
            _, inside = self._open.pop()
            self.seconds[name] += spent - inside
            if self._open:
                self._open[-1][1] += spent

    def watch(self, model: Data2Vec) -> None:
        """Measure from now on, the parts of a model too."""
        self._watching = True
        for name, owner, method in [
            ("front", model, "front"),
            ("mask", model, "mask"),
            ("teacher", model, "encode_teacher"),
            ("gather", model.student, "tokens"),
            ("student", model.student.encoder, "forward"),
            *(("decoder", predictor, "forward") for predictor in model.predictors.values()),
        ]:
            setattr(owner, method, self._around(name, getattr(owner, method)))
        model.targets = _Watched(model.targets, self._around, "targets")  # type: ignore[assignment]  # it passes everything on
        model.loss = _Watched(model.loss, self._around, "loss")  # type: ignore[assignment]  # as above

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **options)

        return timed

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self._clock()


class _Watched:
    """An object whose calls and methods are measured."""

    def __init__(self, inner: Any, around: Callable[..., Any], name: str) -> None:
        self._inner, self._around, self._name = inner, around, name

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._around(self._name, self._inner)(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._around(self._name, found) if callable(found) else found
