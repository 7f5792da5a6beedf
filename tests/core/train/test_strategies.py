"""One process, DDP and FSDP2 give the same training, and continue each other's runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from building import NEW, toy_batch
from scripts import loaded
from torch import nn

from d2v.core.teacher import TargetAverager
from d2v.core.train.ranks import connected
from d2v.core.train.strategies import Replicated, Sharded, Strategy, _blocks, strategy_by_name

TESTS = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("strategy_worker.py")
worker = loaded(WORKER)
several = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")


@pytest.fixture(scope="module", params=[[2], pytest.param([2, 4], marks=pytest.mark.long)], ids=["two", "four"])
def found(request, tmp_path_factory):
    """Results of every rank, by number of processes and rank; runs of 1 and 2 processes are continued on more."""
    folder = tmp_path_factory.mktemp("strategies")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = {(1, 0): worker.everything(folder)}
    torch.set_num_threads(threads)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    for workers in request.param:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
        done = subprocess.run(
            [*torchrun, WORKER, folder], env=environment, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stderr
        for rank in range(workers):
            results[workers, rank] = torch.load(folder / f"{workers}-{rank}.pt", weights_only=True)
    return results


def cases(found, *, skipping):
    return [
        (f"{place}: {name}", *result)
        for place, ways in found.items()
        for name, result in ways.items()
        if ("skipping" in name) == skipping
    ]


@several
def test_all_forms_train_the_same_and_continue_each_other(found):
    expected, losses = found[1, 0]["single"]
    named = cases(found, skipping=False)
    # Fresh runs, and those continued from 1 process, and from 2 in both forms.
    assert len(named) == 1 + 2 * (2 + 2) + (4 * (2 + 2 + 4) if (4, 0) in found else 0)
    for name, tensors, written in named:
        assert tensors.keys() == expected.keys()
        for key, tensor in tensors.items():
            torch.testing.assert_close(
                tensor, expected[key], atol=1e-6, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
            )
        for line, other in zip(written, losses[-len(written) :], strict=True):
            assert line == pytest.approx(other, rel=1e-5)
    assert any(name.startswith("teacher") for name in expected)


@several
def test_layers_that_are_skipped_are_the_same_on_all_ranks(found):
    start = worker.model_of().state_dict()
    for workers in {workers for workers, _ in found if workers > 1}:
        of_ranks = [
            found[workers, rank][f"{form}, skipping"][0] for rank in range(workers) for form in worker.FORMS[workers]
        ]
        for other in of_ranks[1:]:
            for name, tensor in other.items():
                torch.testing.assert_close(tensor, of_ranks[0][name], atol=1e-6, rtol=0)
        assert not torch.equal(
            of_ranks[0]["student.encoder.blocks.0.attn.qkv.weight"], start["student.encoder.blocks.0.attn.qkv.weight"]
        )


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_a_strategy_of_several_processes_alone(name):
    with pytest.raises(ValueError, match=f"{name}.*torchrun"):
        strategy_by_name(name)


@several
def test_the_choice_of_a_strategy(tmp_path):
    assert type(strategy_by_name("auto")) is type(strategy_by_name("single")) is Strategy
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        assert [type(strategy_by_name(name)) for name in ("auto", "ddp", "fsdp")] == [Strategy, Replicated, Sharded]
        with connected():  # leaves a group that exists as it is
            pass
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


@several
def test_one_process_on_many(monkeypatch):
    monkeypatch.setattr("d2v.core.train.strategies.world", lambda: (0, 3))
    with pytest.raises(ValueError, match=r"single.*3"):
        strategy_by_name("single")


@several
def test_methods_of_a_sharded_model_outside_of_a_step(tmp_path):
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        whole = NEW.build()
        sharded = NEW.build()
        sharded.load_state_dict(whole.state_dict())
        Sharded().shard(sharded)
        batch = toy_batch()
        with torch.no_grad():
            ours, theirs = (model.encode_teacher(batch, sink=TargetAverager(range(3))).x for model in (sharded, whole))
            torch.testing.assert_close(ours, theirs)
            with Sharded().whole(sharded):
                torch.testing.assert_close(sharded.student.encode(batch).x, whole.student.encode(batch).x)
    finally:
        dist.destroy_process_group()


def test_the_members_of_a_list_are_the_blocks_of_other_encoders():
    other = nn.ModuleDict({"few": nn.ModuleList([nn.Linear(1, 1)]), "layer": nn.ModuleList([nn.Tanh(), nn.Tanh()])})
    assert list(_blocks(other)) == list(other["layer"])
    assert list(_blocks(nn.Linear(1, 1))) == []
