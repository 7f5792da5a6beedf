"""The hint of a busy machine: once, only where it helps, and cheap."""

import pytest

from d2v.core.train.busy import BusyHint, load_text


class Machine:
    """A clock and a load that a test sets."""

    def __init__(self, load: float | None) -> None:
        self.load = load
        self.time = 0.0
        self.looked = 0
        self.lines: list[str] = []

    def look(self) -> float | None:
        self.looked += 1
        return self.load

    def hint(self, threads: int, processors: int = 2) -> BusyHint:
        return BusyHint(threads, tell=self.lines.append, load=self.look, processors=processors, clock=lambda: self.time)

    def run(self, hint: BusyHint, *, seconds: float, rate: float) -> None:
        for step in range(round(seconds * rate)):
            self.time += 1 / rate
            hint.on_step_end(step)


def test_a_machine_that_is_busy_at_the_start() -> None:
    machine = Machine(5.1)
    machine.run(machine.hint(2), seconds=60, rate=2)
    assert machine.lines == ["the machine is busy (load 5.1 on 2 CPU cores): threads=1 may be much faster"]


def test_a_machine_that_becomes_busy() -> None:
    machine = Machine(0.2)
    hint = machine.hint(2)
    machine.load = 2.1  # the run itself
    machine.run(hint, seconds=60, rate=41)
    assert machine.lines == []
    assert machine.looked == 1, "not checked while the rate holds"
    machine.load = 4.5
    machine.run(hint, seconds=120, rate=2)
    assert len(machine.lines) == 1
    assert "load 4.5" in machine.lines[0]


def test_the_load_may_rise_later_than_the_rate_falls() -> None:
    machine = Machine(0.0)
    hint = machine.hint(2)
    machine.run(hint, seconds=20, rate=40)
    machine.run(hint, seconds=20, rate=2)
    assert machine.lines == [], "slow for another reason, as far as is known"
    machine.load = 4.0
    machine.run(hint, seconds=20, rate=2)
    assert len(machine.lines) == 1


@pytest.mark.parametrize(("threads", "load"), [(1, 9.0), (2, 0.5), (2, None)])
def test_nothing_is_said_where_it_would_not_help(threads: int, load: float | None) -> None:
    machine = Machine(load)
    hint = machine.hint(threads)
    machine.run(hint, seconds=20, rate=40)
    machine.run(hint, seconds=20, rate=2)
    assert machine.lines == []


def test_what_is_free_is_named() -> None:
    machine = Machine(40.0)
    machine.hint(64, processors=64)
    assert "threads=24 " in machine.lines[0]


def test_the_load_is_reported() -> None:
    assert " on " in load_text()
