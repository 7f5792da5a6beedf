"""The collapse monitor against plain computations, and on runs that are healthy, trivial or collapsed."""

import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from d2v.core.masks import Mask
from d2v.core.monitor import CollapseError, CollapseMonitor, effective_rank, standard_deviation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(samples: int, length: int, d: int, *, num_masks: int = 2, seed: int = 0, position: float = 0.0):
    """Mask, dense targets b t d and predictions n d; `position` is the weight of what all samples share."""
    g = generator(seed)
    hidden = torch.rand(samples * num_masks, length, generator=g) < 0.6
    shared = torch.randn(length, d, generator=generator(99))
    y = (1 - position) * torch.randn(samples, length, d, generator=g) + position * shared
    y = torch.nn.functional.instance_norm(y.transpose(1, 2)).transpose(1, 2)
    mask = Mask(hidden=hidden, num_masks=num_masks)
    targets = y.repeat_interleave(num_masks, 0).flatten(0, 1)[mask.index]
    return mask, y, targets, 0.5 * targets + 0.3 * torch.randn(targets.shape, generator=g)


def rank(rows: int, directions: int, d: int = 16, seed: int = 0) -> torch.Tensor:
    g = generator(seed)
    return torch.randn(rows, directions, generator=g) @ torch.randn(directions, d, generator=g)


def everything(rows: int) -> Mask:
    return Mask(hidden=torch.ones(rows // 8, 8, dtype=torch.bool))


def anova(y: torch.Tensor, mask: Mask) -> float:
    """Position fraction from a loop over the distinct pairs."""
    samples, length, _ = y.shape
    hidden = mask.hidden.view(samples, mask.num_masks, length).any(1)
    groups = [y[hidden[:, t], t] for t in range(length) if hidden[:, t].any()]
    rows = torch.cat(groups)
    within = sum(((group - group.mean(0)) ** 2).sum() for group in groups)
    total = ((rows - rows.mean(0)) ** 2).sum()
    return float(1 - within / (len(rows) - len(groups)) / (total / (len(rows) - 1)))


def plain(y, targets, predictions, mask) -> dict[str, float]:
    mse = ((predictions - targets) ** 2).mean()
    return {
        "target_var": float((targets.var(0) + 1e-6).sqrt().mean()),
        "pred_var": float((predictions.var(0) + 1e-6).sqrt().mean()),
        "explained": float(1 - mse / targets.var(0, correction=0).mean()),
        "position_fraction": anova(y, mask),
        "target_rank": plain_rank(targets),
        "prediction_rank": plain_rank(predictions),
    }


def plain_rank(x: torch.Tensor) -> float:
    values = torch.linalg.svdvals((x - x.mean(0)).double()) ** 2
    fractions = values[values > 1e-12 * values[0]] / values.sum()
    return math.exp(-float((fractions * fractions.log()).sum()))


def test_standard_deviation():
    x = torch.randn(9, 4, generator=generator())
    expected = sum(math.sqrt(float(x[:, c].var()) + 1e-6) for c in range(4)) / 4
    assert standard_deviation(x).item() == pytest.approx(expected, rel=1e-6)
    assert standard_deviation(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (9, 9)])
def test_effective_rank_is_that_of_the_covariance(shape):
    x = torch.randn(shape, generator=generator())
    assert effective_rank(x) == pytest.approx(plain_rank(x), rel=1e-6)
    assert effective_rank(1e-9 * x + 3) <= min(shape[0] - 1, shape[1]) + 1e-6


def test_effective_rank_of_nothing():
    assert effective_rank(torch.full((5, 3), 2.0)) == 0.0


@pytest.mark.parametrize("position", [0.0, 0.5])
def test_report_equals_a_plain_computation(position):
    mask, y, targets, predictions = batch(5, 12, 7, position=position)
    monitor = CollapseMonitor()
    monitor.update(predictions, targets, mask)
    assert monitor.report() == pytest.approx(plain(y, targets, predictions, mask), rel=1e-5)


def test_batches_pool_whatever_their_length():
    mask, y, targets, _ = batch(4, 12, 7, position=0.3)
    short = Mask(hidden=torch.nn.functional.pad(mask.hidden[:6, :9], (0, 0)), num_masks=2)
    short_y = y[:3, :9] + 100.0  # another mean, far from zero
    short_targets = short_y.repeat_interleave(2, 0).flatten(0, 1)[short.index]
    monitor = CollapseMonitor()
    for order in ((short_targets, short), (targets, mask)):
        monitor.update(order[0] - 0.1, *order)
    report = monitor.report()
    both = torch.cat([short_targets, targets])
    padded = Mask(hidden=torch.cat([torch.nn.functional.pad(short.hidden, (0, 3)), mask.hidden]), num_masks=2)
    dense = torch.cat([torch.nn.functional.pad(short_y, (0, 0, 0, 3)), y])
    assert report["target_var"] == pytest.approx(standard_deviation(both.double()).item(), rel=1e-5)
    assert report["position_fraction"] == pytest.approx(anova(dense.double(), padded), rel=1e-4)
    assert monitor.report() == {}


def test_a_small_variance_beside_a_large_mean():
    mask, _, targets, _ = batch(4, 12, 7)
    far = targets.double() * 1e-3 + 100
    monitor = CollapseMonitor()
    monitor.update(far, far, mask)
    assert monitor.report()["target_var"] == pytest.approx((far.var(0) + 1e-6).sqrt().mean().item(), rel=1e-2)


def test_healthy_random_data_gives_no_warning(caplog):
    monitor = CollapseMonitor()
    for seed in range(5):
        mask, _, targets, predictions = batch(4, 30, 32, seed=seed)
        monitor.update(predictions, targets, mask)
        report = monitor.report()
        assert abs(report["position_fraction"]) < 0.05
        assert 0.5 < report["explained"] < 0.98
        monitor.check(10_000)
    assert not caplog.records


def test_collapse_onto_the_position_keeps_its_variance(caplog):
    mask, _, targets, _ = batch(4, 30, 32, position=1.0)
    monitor = CollapseMonitor(min_target_var=0.1, min_pred_var=0.01, warmup=200)
    monitor.update(targets + 1e-3, targets, mask)
    report = monitor.report()
    assert report["target_var"] > 0.5
    assert report["position_fraction"] > 0.99
    assert report["explained"] > 0.99
    monitor.check(199)
    assert not caplog.records, "in the warm-up targets may be narrow for a while"
    with pytest.raises(CollapseError, match=r"update 200 .*position .*stop=False"):
        monitor.check(200)
    assert ["position alone" in record.message for record in caplog.records] == [True, False]
    assert "trivial" in caplog.records[1].message
    monitor.stop = False
    monitor.check(200)


def test_the_position_fraction_is_judged_by_its_rise(caplog):
    monitor = CollapseMonitor()
    fractions = []
    for position, warnings in ((0.5, 0), (0.52, 0), (0.6, 1), (0.8, 1)):
        mask, _, targets, predictions = batch(4, 30, 32, position=position)
        monitor.update(predictions, targets, mask)
        fractions.append(monitor.report()["position_fraction"])
        if position < 0.8:
            monitor.check(0)
        else:
            with pytest.raises(CollapseError, match="position alone explains 9"):
                monitor.check(0)
        assert len(caplog.records) == warnings
    assert fractions[0] == pytest.approx(0.5, abs=0.05)  # as it is for centred images, where nothing is wrong
    assert 0.6 < fractions[2] < 0.75 < fractions[3]
    resumed = CollapseMonitor()
    resumed.load_state_dict(monitor.state_dict())
    resumed.update(predictions, targets, mask)
    resumed.report()
    with pytest.raises(CollapseError):
        resumed.check(0)


@pytest.mark.parametrize(("directions", "stops"), [(16, False), (4, False), (2, True)])
def test_rank_collapse(caplog, directions, stops):
    monitor = CollapseMonitor()
    for kept in (16, directions):
        x = rank(400, kept)
        monitor.update(torch.randn(400, 16, generator=generator(1)), x, everything(400))
        report = monitor.report()
    assert report["target_rank"] == pytest.approx(plain_rank(x), rel=1e-5)
    if stops:
        with pytest.raises(CollapseError, match=r"rank .*1"):
            monitor.check(0)
    else:
        monitor.check(0)
    assert bool(caplog.records) == (directions < 16)


def test_few_rows_are_no_collapse(caplog):
    monitor = CollapseMonitor()
    for rows in (800, 8, 1600):
        monitor.update(torch.zeros(rows, 64), rank(rows, 64, 64, seed=rows), everything(rows))
        report = monitor.report()
        monitor.check(0)
        assert report["target_rank"] < 8 or rows > 8
    assert not caplog.records


def test_one_warning_until_it_recovers(caplog):
    monitor = CollapseMonitor()
    for scale in (0.01, 0.01, 1.0, 0.01):
        x = rank(80, 16)
        monitor.update(x + scale * torch.randn(x.shape, generator=generator(5)), x, everything(80))
        monitor.report()
        monitor.check(0)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert all("trivial" in record.message for record in caplog.records)


@pytest.mark.parametrize("name", ["target_var", "pred_var"])
def test_published_rule(name):
    monitor = CollapseMonitor(**{f"min_{name}": 0.1}, stop=False)
    x = rank(80, 16)
    pair = (x, 1e-3 * x) if name == "target_var" else (1e-3 * x, x)
    monitor.update(*pair, everything(80))
    monitor.report()
    monitor.check(5000)
    with pytest.raises(CollapseError, match=rf"update 5001 {name}=0.*min_{name}=0.1"):
        monitor.check(5001)


def test_the_first_report_survives_a_restart():
    first = CollapseMonitor()
    first.update(torch.zeros(400, 16), rank(400, 16), everything(400))
    first.report()
    second = CollapseMonitor()
    second.load_state_dict(first.state_dict())
    second.update(torch.zeros(400, 16), rank(400, 1), everything(400))
    second.report()
    with pytest.raises(CollapseError):
        second.check(0)


def test_what_too_few_rows_leave_undefined_is_missing():
    monitor = CollapseMonitor()
    assert monitor.report() == {}
    monitor.check(10_000)
    monitor.update(torch.zeros(0, 3), torch.zeros(0, 3), Mask(hidden=torch.zeros(1, 4, dtype=torch.bool)))
    assert monitor.report() == {}
    monitor.update(torch.zeros(8, 3), torch.randn(8, 3, generator=generator()), everything(8))
    assert set(monitor.report()) == {"target_var", "pred_var", "explained", "target_rank", "prediction_rank"}
    monitor.update(torch.zeros(1, 3), torch.ones(1, 3), Mask(hidden=torch.tensor([[True, False]])))
    assert set(monitor.report()) == {"target_rank", "prediction_rank"}


def test_a_bad_batch_is_left_to_the_loop():
    monitor = CollapseMonitor()
    x = rank(80, 16)
    monitor.update(x, torch.full_like(x, math.nan), everything(80))
    assert set(monitor.report()) == {"pred_var", "prediction_rank"}
    monitor.check(0)
    monitor.update(0.5 * x, x, everything(80))
    assert monitor.report()["target_rank"] == pytest.approx(plain_rank(x), rel=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match=r"min_pred_var.*-1"):
        CollapseMonitor(min_pred_var=-1.0)
    with pytest.raises(ValueError, match=r"n=8 hidden positions, not \(8, 3\) and \(7, 3\)"):
        CollapseMonitor().update(torch.zeros(8, 3), torch.zeros(7, 3), everything(8))


def test_workers_report_as_one(tmp_path):
    mask, y, targets, predictions = batch(4, 12, 7, position=0.3)
    mine = mask.index < 2 * 2 * 12  # the rows of the first two samples
    parts = [
        {"hidden": hidden, "targets": targets[rows], "predictions": predictions[rows]}
        for hidden, rows in zip(mask.hidden.chunk(2), (mine, ~mine), strict=True)
    ]
    torch.save(parts, tmp_path / "inputs.pt")
    script = Path(__file__).with_name("monitor_worker.py")
    workers = [
        subprocess.Popen(
            [sys.executable, script, str(rank), tmp_path / "store", tmp_path / "inputs.pt"], stdout=subprocess.PIPE
        )
        for rank in range(2)
    ]
    reports = [json.loads(worker.communicate(timeout=100)[0]) for worker in workers]
    assert reports[0] == reports[1]
    expected = plain(y, targets, predictions, mask)
    for name in ("target_var", "pred_var", "explained", "position_fraction"):
        assert reports[0][name] == pytest.approx(expected[name], rel=1e-5)
