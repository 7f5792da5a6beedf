"""Schedules against the published values, and what they refuse."""

import json
import math
from pathlib import Path

import pytest

from d2v.core.durations import updates
from d2v.core.train import (
    BEiTCosineSchedule,
    BEiTTriPhaseSchedule,
    CosineSchedule,
    PolynomialSchedule,
    Schedule,
    TriStageSchedule,
)

DATA = Path(__file__).parent / "data"
V1 = json.loads((DATA / "schedules_v1.json").read_text())
V2 = json.loads((DATA / "schedules_v2.json").read_text())
V2_RECIPES = [name for name in V2 if isinstance(V2[name], dict) and "lr" in V2[name]]


def from_fairseq(kind: str, config: dict) -> Schedule:
    lr = config["lr"][0]
    if kind == "CosineLRSchedule":
        low = config.get("min_lr", 0.0)
        return CosineSchedule(lr, total=config["max_update"], warmup=config["warmup_updates"], min_lr=low)
    if kind == "PolynomialDecayLRSchedule":
        return PolynomialSchedule(lr, total=config["total_num_update"], warmup=config["warmup_updates"])
    assert kind == "TriStageLRSchedule"
    stages = config.get("phase_ratio") or [config[f"{stage}_steps"] for stage in ("warmup", "hold", "decay")]
    names = ("warmup", "hold", "decay")
    scale = config.get("final_lr_scale", 0.01)
    return TriStageSchedule(lr, **dict(zip(names, stages, strict=True)), total=config["max_update"], final_scale=scale)


def from_beit(config: dict) -> Schedule:
    value, final, per_epoch = config["base_value"], config["final_value"], config["niter_per_ep"]
    total = config["epochs"] * per_epoch
    if "decay_perc" in config:
        warmup, decay = config["warmup_perc"], config["decay_perc"]
        return BEiTTriPhaseSchedule(value, final=final, total=total, warmup=warmup, decay=decay)
    warmup = config.get("warmup_steps", config.get("warmup_epochs", 0) * per_epoch)
    return BEiTCosineSchedule(value, final=final, total=total, warmup=warmup)


def close(value: float, peak: float):
    # Near its end the cosine is 1 + cos(pi (1 - tiny)), where float64 keeps an absolute precision only.
    return pytest.approx(value, rel=1e-12, abs=1e-15 * peak)


@pytest.mark.parametrize("recipe", V2_RECIPES)
def test_cosine_of_the_2_0_recipes(recipe):
    case = V2[recipe]
    schedule = CosineSchedule(case["peak_lr"], total=case["max_update"], warmup=case["warmup_updates"])
    for n, value in case["lr"].items():
        assert schedule(int(n)) == close(value, case["peak_lr"]), n


@pytest.mark.parametrize("case", V1["fairseq"], ids=lambda case: case["name"])
def test_fairseq_schedules(case):
    schedule = from_fairseq(case["kind"], case["config"])
    for n, value in case["values"]:
        assert schedule(n) == close(value, case["config"]["lr"][0]), n


@pytest.mark.parametrize("case", V1["beit"], ids=lambda case: case["name"])
def test_beit_schedules(case):
    schedule = from_beit(case["config"])
    for n, value in enumerate(case["values"]):
        assert schedule(n) == close(value, case["config"]["base_value"]), n


def test_the_files_hold_what_the_tests_read():
    assert len(V2_RECIPES) == 7
    assert len(V1["fairseq"]) == 9
    assert len(V1["beit"]) == 4


def test_fractions_equal_updates():
    assert CosineSchedule(1.0, total=1000, warmup=0.1)(77) == CosineSchedule(1.0, total=1000, warmup=100)(77)
    fractions = TriStageSchedule(1.0, warmup=0.1, hold=0.4, decay=0.5, total=200)
    counts = TriStageSchedule(1.0, warmup=20, hold=80, decay=100)
    assert [fractions(n) for n in range(220)] == [counts(n) for n in range(220)]


def test_warmup_start_and_its_default():
    assert CosineSchedule(1.0, total=10, warmup=5, min_lr=0.1)(0) == 0.1
    assert CosineSchedule(1.0, total=10, warmup=5, min_lr=0.1, warmup_start=0.5)(0) == 0.5


def test_cosine_restarts_with_shrunk_rates():
    schedule = CosineSchedule(1.0, total=30, warmup=10, shrink=0.5)
    assert schedule(30) == 0.5
    assert schedule(50) == 0.25
    assert schedule(37) == pytest.approx(0.5 * schedule(17))


def test_polynomial_power():
    schedule = PolynomialSchedule(1.0, total=10, end_lr=0.2, power=2.0)
    assert schedule(0) == 1.0
    assert schedule(5) == pytest.approx(0.2 + 0.8 * 0.25)
    assert schedule(10) == schedule(11) == 0.2


def test_beit_ends_and_single_steps():
    assert BEiTCosineSchedule(1.0, final=0.1, total=10)(99) == pytest.approx(0.1)
    assert BEiTCosineSchedule(1.0, final=0.1, total=10, warmup=1)(0) == 0.0
    tri = BEiTTriPhaseSchedule(1.0, final=0.1, total=10, warmup=2, decay=1)
    assert [tri(n) for n in (1, 5, 9, 10)] == [1.0, 1.0, 1.0, 0.1]


def test_a_decay_that_rounds_down_to_nothing():
    schedule = TriStageSchedule(1.0, warmup=0.03, hold=0.9, decay=0.07, total=10)
    assert [schedule(n) for n in (0, 8, 9)] == [1.0, 1.0, 0.01]


def test_the_end_of_the_run_may_cut_off_the_decay():
    """Published: vox_10h_aws and others."""
    cut = TriStageSchedule(2e-5, warmup=8000, hold=0, decay=72_000, total=60_000, final_scale=0.05)
    whole = TriStageSchedule(2e-5, warmup=8000, hold=0, decay=72_000, final_scale=0.05)
    assert cut(59_999) == whole(59_999) > 2e-5 * 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineSchedule(-1e-3, total=10), "lr=-0.001"),
        (lambda: CosineSchedule(math.nan, total=10), "lr=nan"),
        (lambda: CosineSchedule(1e-3, total=0), "total=0"),
        (lambda: CosineSchedule(1e-3, total=10, warmup=11), "warmup=11 is 11 updates"),
        (lambda: CosineSchedule(1e-3, total=10, warmup=1.0), "as long as the run"),
        (lambda: CosineSchedule(1e-3, total=10, warmup=3.0), "write 3 for updates"),
        (lambda: CosineSchedule(1e-3, total=10, min_lr=-1.0), "min_lr=-1"),
        (lambda: CosineSchedule(1e-3, total=10, warmup_start=-1.0), "warmup_start=-1"),
        (lambda: CosineSchedule(1e-3, total=10, shrink=0.0), "shrink.*0"),
        (lambda: TriStageSchedule(1.0, warmup=0.1, hold=0.4, decay=0.4, total=100), "sum to 0.9; they must sum to 1"),
        (lambda: TriStageSchedule(1.0, warmup=0.1, hold=0.4, decay=0.5), "warmup=0.1 is a fraction.*total"),
        (lambda: TriStageSchedule(1.0, warmup=50, hold=60, decay=20, total=100), "take 110 updates"),
        (lambda: TriStageSchedule(1.0, warmup=-1, hold=40, decay=20), "warmup=-1 is negative"),
        (lambda: TriStageSchedule(1.0, warmup=1, hold=4, decay=2, final_scale=0.0), "final_scale.*0"),
        (lambda: PolynomialSchedule(1.0, total=10, warmup=10), "as long as the run"),
        (lambda: PolynomialSchedule(1.0, total=10, power=-1.0), "power=-1"),
        (lambda: BEiTCosineSchedule(1.0, final=-1.0, total=10), "final=-1"),
        (lambda: BEiTTriPhaseSchedule(1.0, final=0.1, total=10, warmup=0.8, decay=0.3), "take 11 updates"),
    ],
)
def test_refusals_name_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "schedule",
    [
        CosineSchedule(1.0, total=10),
        TriStageSchedule(1.0, warmup=2, hold=4, decay=4),
        PolynomialSchedule(1.0, total=10),
        BEiTCosineSchedule(1.0, final=0.1, total=10, warmup=2),
        BEiTTriPhaseSchedule(1.0, final=0.1, total=10, decay=2),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_no_update_comes_before_the_first(schedule):
    schedule(0)
    with pytest.raises(ValueError, match=r"n=-1 .* finished"):
        schedule(-1)


@pytest.mark.parametrize("duration", [True, "10", None])
def test_durations_are_numbers(duration):
    with pytest.raises(TypeError, match="neither a number of updates"):
        updates(duration)


def test_fractions_are_rounded_down():
    assert updates(0.07, 400_000) == 28_000
    assert updates(0.19, 10) == 1
    assert updates(1.0, 10) == 10
    assert updates(0.0, 10) == 0
