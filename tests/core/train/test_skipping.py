"""Updates that are not applied: counted, limited, the same after a resume and on all ranks; their batches are saved."""

import json
import math
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from building import toy_batch
from safetensors.torch import load_file
from torch import nn
from training import NOISY, At, Boom, lines, opened, same, toy_data, train

import d2v.core
from d2v.core import Mask
from d2v.core.files import ConfigError, open_model, to_plain
from d2v.core.jobs import running
from d2v.core.model import Batch, StepOutput
from d2v.core.train import (
    Interrupted,
    JsonLines,
    LossSpikeError,
    MemorySource,
    NonFiniteError,
    PublishedAdamW,
    SavedUpdate,
    Skipping,
    fit,
)
from d2v.core.train.debug import Recorder


class Line(nn.Module):
    """w x, whose loss is multiplied at some updates."""

    def __init__(self, factors):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.factors = factors

    def forward(self, batch, *, update):
        loss = (batch.source @ self.weight).square().sum() * self.factors.get(update, 1)
        return StepOutput(loss_sum=loss, sample_size=batch.size)


class Weights:
    """Remembers the weights after each update."""

    def __init__(self, model):
        self.model, self.seen = model, [model.weight.detach().clone()]

    def on_step_end(self, step):
        self.seen.append(self.model.weight.detach().clone())


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_skipped_update_changes_no_weights_and_counts(tmp_path, value):
    model = Line({4: value, 5: value})
    weights = Weights(model)
    train(tmp_path / "run", model=model, monitor=None, hooks=[weights], skipping=Skipping(limit=2))
    unchanged = [torch.equal(before, after) for before, after in pairwise(weights.seen)]
    assert unchanged == [True, False, False, False, True, True, False, False]  # the warm-up begins with a rate of 0
    found = lines(tmp_path / "run")
    assert [(line["step"], line["skipped"]) for line in found] == [(2, 0), (4, 0), (6, 2), (8, 2)]
    assert "loss" not in found[2]  # both of its updates were skipped
    assert all(math.isfinite(value) for line in found for value in line.values())


def test_the_teacher_makes_no_step():
    class Taught(Line):
        def update_teacher(self, step):
            taught.append(step)

    taught = []
    model = Taught({1: NAN})
    optimizer = torch.optim.SGD(model.parameters())
    data = MemorySource([Batch(source=torch.ones(2, 3))])
    fit(model, data, optimizer=optimizer, schedule=lambda n: 1e-3, max_steps=4, skipping=Skipping(limit=1))
    assert taught == [1, 3, 4]


@pytest.mark.parametrize("step", [4, 5, 6])
def test_resuming_around_a_skipped_update_is_exact(tmp_path, step):
    options = {"monitor": None, "log_every": 2}
    train(tmp_path / "whole", model=Line({4: NAN, 6: NAN}), skipping=Skipping(limit=2), **options)
    stop = [At(step, lambda: signal.raise_signal(signal.SIGTERM))]
    with pytest.raises(Interrupted):
        train(tmp_path / "run", model=Line({4: NAN, 6: NAN}), skipping=Skipping(limit=2), hooks=stop, **options)
    train(tmp_path / "run", model=Line({4: NAN, 6: NAN}), skipping=Skipping(limit=2), **options)
    same(tmp_path / "run", tmp_path / "whole")


def test_the_limit_is_of_the_whole_run_and_can_be_raised(tmp_path):
    model = {3: NAN, 7: NAN}
    for _ in range(2):  # the resumed run remembers the first one
        with pytest.raises(NonFiniteError, match=r"update 8 .*after 1 .*max_skipped_updates=2"):
            train(tmp_path / "run", model=Line(model), monitor=None, skipping=Skipping(limit=1))
    train(tmp_path / "run", model=Line(model), monitor=None, skipping=Skipping(limit=2))
    assert lines(tmp_path / "run")[-1]["skipped"] == 2


def test_what_a_spike_is():
    rule = Skipping(spike_ratio=3.0)
    for _ in range(19):
        assert rule.fault(loss=1.0, norm=1.0) is None
    assert rule.fault(loss=100.0, norm=1.0) is None  # too few to compare with
    assert "100 " in rule.fault(loss=100.0, norm=1.0)
    assert rule.fault(loss=2.9, norm=1.0) is None
    assert "finite" in rule.fault(loss=NAN, norm=1.0)
    assert "finite" in rule.fault(loss=1.0, norm=INF)
    assert rule.fault(loss=-1.0, norm=1e9) is None
    again = Skipping(spike_ratio=3.0)
    again.load_state_dict(json.loads(json.dumps(rule.state_dict())))
    assert again == rule
    assert Skipping().fault(loss=None, norm=1e9) is None
    for _ in range(100):  # what was far above becomes the usual
        rule.fault(loss=2.9, norm=1.0)
    assert rule.fault(loss=8.0, norm=1.0) is None


@pytest.mark.parametrize("ratio", [1.0, -2.0, 0.5, NAN, INF])
def test_refused_ratios(ratio):
    with pytest.raises(ValueError, match="spike_ratio"):
        Skipping(spike_ratio=ratio)


def spiky(path, step=None, **options):
    """30 updates, of which the 26th has a tenfold loss and the 28th a hundredfold one."""
    model = Line({25: 10.0, 27: 100.0})
    weights = Weights(model)
    data = MemorySource([Batch(source=torch.ones(2, 3) + i / 10) for i in range(3)])
    run = opened(path)
    hooks = [weights] if step is None else [weights, At(step, lambda: signal.raise_signal(signal.SIGTERM))]
    try:
        fit(
            model,
            data,
            optimizer=torch.optim.SGD(model.parameters()),
            schedule=lambda n: 1e-4,
            max_steps=30,
            run=run,
            log_every=1,
            sinks=[JsonLines(run.metrics)],
            hooks=hooks,
            **options,
        )
    finally:
        run.close()
    return weights.seen


def test_spikes_are_skipped_and_resuming_is_exact(tmp_path):
    seen = spiky(tmp_path / "whole", skipping=Skipping(limit=2, spike_ratio=4.0))
    assert [i for i, (one, other) in enumerate(pairwise(seen)) if torch.equal(one, other)] == [25, 27]
    assert [line["skipped"] for line in lines(tmp_path / "whole")] == [0] * 25 + [1, 1, 2, 2, 2]
    with pytest.raises(Interrupted):
        spiky(tmp_path / "run", step=25, skipping=Skipping(limit=2, spike_ratio=4.0))
    spiky(tmp_path / "run", skipping=Skipping(limit=2, spike_ratio=4.0))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("run", "whole"))
    assert torch.equal(one["weight"], other["weight"])


def test_a_spike_ends_the_run_without_a_limit(tmp_path):
    with pytest.raises(LossSpikeError, match=r"update 26 .*spike_ratio=4.*max_skipped_updates=1"):
        spiky(tmp_path, skipping=Skipping(spike_ratio=4.0))


def test_the_batches_are_saved_and_give_the_same_loss(tmp_path):
    model = NOISY.build()
    optimizer = PublishedAdamW(model.parameters())
    rule = Skipping(spike_ratio=1.0 + 1e-9, limit=100, debug=True)
    run = opened(tmp_path)
    options = {"optimizer": optimizer, "schedule": lambda n: 1e-6, "max_steps": 40, "accumulate": 2}
    fit(model, toy_data(), run=run, skipping=rule, log_every=100, **options)
    run.close()
    folders = sorted((tmp_path / "debug").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    assert len(folders) == rule.skipped > 2
    assert [folder for folder in folders if (folder / "model").exists()] == folders[-2:]  # weights of two only
    for folder in folders[-2:]:
        saved = SavedUpdate.read(folder)
        assert folder.name == f"update-{saved.update}"
        assert (saved.rank, saved.precision, len(saved.batches)) == (0, "fp32", 2)
        again = saved.loss_of(open_model(folder / "model").module)
        assert again == pytest.approx(saved.loss, rel=1e-6)
        assert f"{saved.loss:.3g}"[:3] in saved.reason


def test_what_is_saved_of_a_batch_that_is_not_finite(tmp_path):
    torch.manual_seed(1)
    batches = [toy_batch(ids=torch.arange(3) + 3 * i) for i in range(5)]
    batches[3].source[1] = NAN

    class Named(MemorySource):
        def name(self, id):
            return f"sample-{id}.png"

    model = NOISY.build()
    with pytest.raises(NonFiniteError, match=r"update 4 .*debug.update-4"):
        train(tmp_path, data=Named(batches, seed=None), accumulate=1, model=model, skipping=Skipping(debug=True))
    saved = SavedUpdate.read(tmp_path / "debug/update-4")
    assert saved.names == (("sample-9.png", "sample-10.png", "sample-11.png"),)
    assert saved.batches[0].source.isnan().any()
    assert math.isnan(saved.norm)
    stored = open_model(tmp_path / "debug/update-4/model")
    assert to_plain(stored.description.model) == to_plain(NOISY)
    assert math.isnan(saved.loss_of(stored.module))
    text = (tmp_path / "debug/update-4/rank-0.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # NaN is no JSON


def test_a_full_disk_does_not_hide_the_reason(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("d2v.core.train.debug.write_bytes", full)
    with pytest.raises(NonFiniteError, match="update 5 "):
        train(tmp_path, model=Line({4: NAN}), monitor=None, skipping=Skipping(debug=True))
    assert "No space left" in caplog.text


@pytest.mark.long
def test_two_ranks_skip_the_same_updates(tmp_path):
    script = Path(__file__).with_name("skipping_worker.py")
    workers = [subprocess.Popen([sys.executable, script, str(rank), "2", tmp_path]) for rank in range(2)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first["weight"], second["weight"])
    # Rank 1 alone has a NaN in update 4, and in update 24 a loss that is a spike only on average.
    assert first["skipped"] == second["skipped"] == [4, 24]
    for rank in range(2):
        assert SavedUpdate.read(tmp_path / "run/debug/update-24", rank).rank == rank


def test_the_keys_of_a_run(tmp_path, monkeypatch):
    def caught(*_, **options):
        seen.update(options)
        raise Boom

    seen = {}
    monkeypatch.setattr(running, "fit", caught)
    keys = {"train.max_skipped_updates": 3, "train.spike_ratio": 4.0, "train.debug": True, "train.timeout": 60}
    with pytest.raises(Boom):
        d2v.core.pretrain("vision/small", keys, data="digits", out=str(tmp_path / "run"), device="cpu", progress=False)
    assert seen["skipping"] == Skipping(limit=3, spike_ratio=4.0, debug=True)
    assert seen["timeout"] == 60.0
    with pytest.raises(ConfigError, match=r"spike_ratio.*above 1"):
        d2v.core.pretrain("vision/small", {"train.spike_ratio": 0.5}, data="digits", out=str(tmp_path / "other"))


def test_all_fields_of_a_batch_come_back(tmp_path):
    run = opened(tmp_path)
    batch = Batch(
        source=torch.randn(3, 2, 4).transpose(1, 2),  # not contiguous
        padding=torch.rand(3, 4) > 0.5,
        ids=torch.arange(3),
        mask=Mask(hidden=torch.rand(6, 4) > 0.5, num_masks=2, channels=torch.rand(6, 5) > 0.5),
        view=torch.randn(3, 4, 2),
        labels=torch.arange(3),
        label_lengths=torch.ones(3, dtype=torch.long),
        modality="toy",
    )
    recorder = Recorder(run=run, seed=7, precision="bf16", data=None)
    recorder.see(0, Batch(source=torch.zeros(1, 1)))  # of an update before
    recorder.see(0, batch)
    output = StepOutput(loss_sum=torch.tensor(3.0), sample_size=2)
    folder = recorder.save(9, "no reason", INF, [output], {"weight": torch.ones(2)})
    run.close()
    saved = SavedUpdate.read(folder)
    assert (saved.update, saved.loss, saved.norm, saved.seed, saved.precision) == (9, 1.5, INF, 7, "bf16")
    (found,) = saved.batches
    for name in ("source", "padding", "ids", "view", "labels", "label_lengths"):
        assert torch.equal(getattr(found, name), getattr(batch, name)), name
    assert found.modality == "toy"
    assert torch.equal(found.mask.hidden, batch.mask.hidden)
    assert torch.equal(found.mask.channels, batch.mask.channels)
    assert found.mask.num_masks == 2


def test_an_update_that_is_saved_again_has_its_own_weights(tmp_path):
    run = opened(tmp_path)
    recorder = Recorder(run=run, seed=7, precision="fp32", data=None)
    output = StepOutput(loss_sum=torch.tensor(3.0), sample_size=2)
    for value in (1.0, 2.0):  # the second time after a resume that changed the run, for example with other data
        recorder.see(0, Batch(source=torch.full((1, 1), value)))
        folder = Path(recorder.save(9, "no reason", INF, [output], {"weight": torch.full((2,), value)}))
    run.close()
    assert SavedUpdate.read(folder).batches[0].source.item() == 2.0
    assert load_file(folder / "model/model.safetensors")["weight"].tolist() == [2.0, 2.0]
    assert not list(folder.glob(".*"))
