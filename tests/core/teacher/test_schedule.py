"""The teacher's decay against the published values (`ema_decay.json`: n finished updates, decay)."""

import json
from pathlib import Path

import pytest

from d2v.core.teacher import EMASchedule

PUBLISHED = json.loads((Path(__file__).parent / "data" / "ema_decay.json").read_text())


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case["name"])
def test_published_values(case):
    # A start that is counted from 0 gives the value for n = 0 at the first update.
    for first in (1, 0):
        schedule = EMASchedule(case["start"], end=case["end"], anneal=case["anneal"], first=first)
        for k, value in case["values"]:
            n = k + 1 - first
            if n >= 1:
                assert schedule(n) == pytest.approx(value, rel=1e-12), (n, first)


def test_the_file_holds_what_the_test_reads():
    assert len(PUBLISHED) == 10
    assert any(k == 0 for case in PUBLISHED for k, _ in case["values"])


def test_a_fraction_of_the_run_equals_its_updates():
    fraction = EMASchedule(0.9, end=0.99, anneal=0.3, total=1000)
    count = EMASchedule(0.9, end=0.99, anneal=300)
    assert [fraction(n) for n in range(1, 1001)] == [count(n) for n in range(1, 1001)]
    assert fraction(300) == fraction(1000) == 0.99
    assert fraction(299) < 0.99


@pytest.mark.parametrize(
    "schedule", [EMASchedule(0.9), EMASchedule(0.9, end=0.9, anneal=10), EMASchedule(0.1, end=0.9)]
)
def test_constant(schedule):
    assert {schedule(n) for n in (1, 2, 10, 1000)} == {schedule.start if schedule.end is None else schedule.end}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMASchedule(1.1), "start.*1.1"),
        (lambda: EMASchedule(-0.1), "start.*-0.1"),
        (lambda: EMASchedule(float("nan")), "start.*nan"),
        (lambda: EMASchedule(0.9, end=2.0), "end.*2.0"),
        (lambda: EMASchedule(0.9, end=0.99, anneal=0.5), "needs total"),
        (lambda: EMASchedule(0.9, end=0.99, anneal=-3), "-3 is negative"),
        (lambda: EMASchedule(0.9)(-1), "n=-1 .* finished"),
        (lambda: EMASchedule(0.9, end=0.99, anneal=3, first=0)(0), "n=0 .* finished"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
