"""Requests to stop: in a validation, twice below torchrun, and a second one."""

import signal
import time
from pathlib import Path

import pytest
import torch
from training import At, Boom, boom, lines, same, started, train, wait_for_line

from d2v.core.train import Interrupted, Validation
from d2v.core.train import signals as signals_module
from d2v.core.train.signals import StopRequest, ValidationStopped, until_stopped

CPU = torch.device("cpu")


class Measure:
    """A validation of five batches; a signal comes before the third one in the pass of this number, from 1."""

    def __init__(self, stopped: int | None = None) -> None:
        self.passes, self.stopped, self.batches = 0, stopped, 0

    def __call__(self) -> dict[str, float]:
        self.passes += 1
        for number in until_stopped(range(5), CPU):
            self.batches += 1
            if self.passes == self.stopped and number == 2:
                signal.raise_signal(signal.SIGTERM)
        return {"val_loss": 1.0 / self.passes}


class Known(Measure):
    """The result depends on the update only, as that of a model does."""

    def on_step_end(self, step: int) -> None:
        self.step = step

    def __call__(self) -> dict[str, float]:
        super().__call__()
        return {"val_loss": abs(self.step - 5.0)}


def validated(path: Path, stopped: int | None = None, after: int = 0, hooks: tuple[object, ...] = ()) -> Known:
    """Train with a validation after every second update; `after`: updates of before."""
    measure = Known(stopped)
    measure.step = after
    rule = Validation(run=measure, every=2, best="val_loss", patience=3)
    train(path, validation=rule, hooks=[measure, *hooks])
    return measure


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_validation_is_interrupted_and_repeated(tmp_path: Path, number: int) -> None:
    validated(tmp_path / "whole")
    with pytest.raises(Interrupted) as caught:
        validated(tmp_path / "run", stopped=number)
    assert (caught.value.signum, caught.value.step) == (signal.SIGTERM, 2 * number)
    written = lines(tmp_path / "run") if number > 1 else []
    assert [line["step"] for line in written] == [2, 4, 6, 8][: number - 1]
    measure = validated(tmp_path / "run", after=2 * number)
    assert measure.passes == 4 - number + 1
    if number < 4:
        same(tmp_path / "run", tmp_path / "whole")
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    one, other = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("run", "whole"))
    assert one == other


def test_a_pass_ends_after_its_batch(tmp_path: Path) -> None:
    measure = Measure(stopped=1)
    with pytest.raises(ValidationStopped), StopRequest():
        measure()
    assert measure.batches == 3
    assert Measure(stopped=None)() == {"val_loss": 1.0}  # outside of a training nothing is asked


@pytest.mark.parametrize("crash", [5, 6])
def test_a_repeated_validation_has_one_line_whatever_follows(tmp_path: Path, crash: int) -> None:
    validated(tmp_path / "whole")
    with pytest.raises(Interrupted):
        validated(tmp_path / "run", stopped=2)
    with pytest.raises(Boom):  # before the next checkpoint
        validated(tmp_path / "run", after=4, hooks=(At(crash, boom),))
    validated(tmp_path / "run", after=4)
    same(tmp_path / "run", tmp_path / "whole")


def test_a_second_signal_ends_the_process() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.long
def test_a_second_sigterm_ends_the_process_and_loses_nothing(tmp_path: Path) -> None:
    process = started("training.train(path, hooks=[training.At(5, lambda: time.sleep(100))])", tmp_path / "run")
    wait_for_line(tmp_path / "run", 4, process)
    time.sleep(0.5)  # it sleeps in the update after
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None  # it would finish the update
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM
    train(tmp_path / "run")
    train(tmp_path / "whole")
    same(tmp_path / "run", tmp_path / "whole")


def test_below_torchrun_the_same_request_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    now = 100.0
    monkeypatch.setattr(signals_module.time, "monotonic", lambda: now)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        now += 1.0
        signal.raise_signal(signal.SIGINT)
        assert stop.signum == signal.SIGINT
        now += 1.5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
