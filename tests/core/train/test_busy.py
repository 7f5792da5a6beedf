"""The hint of a busy machine: once, only where it helps, and cheap."""

import os
import subprocess
import sys
import time

import pytest

from d2v.core.train.busy import BusyHint, load_text, others_running


class Machine:
    """A clock and other programs that a test sets."""

    def __init__(self, others: int | None) -> None:
        self.others = others
        self.time = 0.0
        self.looked = 0
        self.lines: list[str] = []

    def look(self) -> int | None:
        self.looked += 1
        return self.others

    def hint(self, threads: int, processors: int = 2) -> BusyHint:
        return BusyHint(
            threads, tell=self.lines.append, others=self.look, processors=processors, clock=lambda: self.time
        )

    def run(self, hint: BusyHint, *, seconds: float, rate: float) -> None:
        for step in range(round(seconds * rate)):
            self.time += 1 / rate
            hint.on_step_end(step)


def test_a_machine_that_is_busy_at_the_start() -> None:
    machine = Machine(5)
    machine.run(machine.hint(2), seconds=60, rate=2)
    assert machine.lines == [
        "the machine is busy (5 threads of other programs on 2 CPU cores): threads=1 may be much faster"
    ]


def test_a_machine_that_becomes_busy() -> None:
    machine = Machine(0)
    hint = machine.hint(2)
    machine.run(hint, seconds=60, rate=41)
    assert machine.lines == []
    assert machine.looked == 1, "not checked while the rate holds"
    machine.others = 1
    machine.run(hint, seconds=120, rate=2)
    assert len(machine.lines) == 1
    assert "1 thread of" in machine.lines[0]


def test_other_programs_may_start_later_than_the_rate_falls() -> None:
    machine = Machine(0)
    hint = machine.hint(2)
    machine.run(hint, seconds=20, rate=40)
    machine.run(hint, seconds=20, rate=2)
    assert machine.lines == [], "slow for another reason, as far as is known"
    machine.others = 4
    machine.run(hint, seconds=20, rate=2)
    assert len(machine.lines) == 1


@pytest.mark.parametrize(("threads", "others"), [(1, 9), (2, 0), (2, None)])
def test_nothing_is_said_where_it_would_not_help(threads: int, others: int | None) -> None:
    machine = Machine(others)
    hint = machine.hint(threads)
    machine.run(hint, seconds=20, rate=40)
    machine.run(hint, seconds=20, rate=2)
    assert machine.lines == []


def test_what_is_free_is_named() -> None:
    machine = Machine(40)
    machine.hint(64, processors=64)
    assert "threads=24 " in machine.lines[0]


def test_the_load_is_reported() -> None:
    assert " on " in load_text()


@pytest.mark.skipif(not os.path.exists("/proc/loadavg"), reason="only Linux counts running threads")  # noqa: PTH110 - as above
def test_threads_of_other_programs_are_counted_and_the_own_past_is_not() -> None:
    if others_running() is None:
        pytest.skip("this process may not use all cores, or threads are not counted here")
    until = time.monotonic() + 0.5
    while time.monotonic() < until:  # this would raise the load average
        pass
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        time.sleep(0.5)
        counted = others_running()
        assert counted is not None
        assert counted >= 3
    finally:
        for process in busy:
            process.kill()
            process.wait()
