"""Runs that are killed twenty times, at random moments, end as one that was never interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]
UPDATES = 60
# A validation and a checkpoint after every few updates, so that kills meet them too.
KEYS = (
    "finetune",
    "vision/small-finetune",
    "model=pretrained",
    "data.path=digits",
    "device=cpu",
    "threads=1",
    "train.precision=fp32",
    "train.batch_size=8",
    f"train.max_steps={UPDATES}",
    "train.log_every=1",
    "train.checkpoint_every=2",
    "train.sinks=[]",
    "validation.every=3",
    "data.num_workers=0",
    "resume=true",
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def d2v(*arguments: str, processes: int = 1, restarts: int = 0) -> tuple[str, ...]:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", f"--max-restarts={restarts}")
    return (sys.executable, *(torchrun if processes == 2 else ()), "-m", "d2v", *arguments)


def workers_of(process: int) -> list[int]:
    """Processes that this one has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == process:
            found.append(int(entry.parent.name))
    return found


def lines(folder: Path) -> list[dict[str, float]]:
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for_progress(folder: Path, process: subprocess.Popen[str], since: int) -> None:
    """Wait until the run has more lines than that, so that every start gets somewhere."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        file = folder / "metrics.jsonl"
        if file.exists() and file.read_bytes().count(b"\n") > since:
            return
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model, and an uninterrupted run of one process and of two."""
    path = tmp_path_factory.mktemp("survival")
    pretrain = ("pretrain", "vision/small", "data.path=digits", "device=cpu", "threads=1", "train.max_steps=2")
    subprocess.run(d2v(*pretrain, "out=pretrained"), cwd=path, env=ENVIRONMENT, check=True, capture_output=True)
    for processes in (1, 2):
        command = d2v(*KEYS, f"out=whole-{processes}", processes=processes)
        subprocess.run(command, cwd=path, env=ENVIRONMENT, check=True, capture_output=True)
    return path


def same(folder: Path, run: str, whole: str) -> None:
    found, expected = (lines(folder / name) for name in (run, whole))
    assert [line["step"] for line in found] == list(range(1, UPDATES + 1))
    for one, other in zip(found, expected, strict=True):
        one.pop("data_wait"), other.pop("data_wait")
        assert one == other
    weights, others = (load_file(folder / name / "model/model.safetensors") for name in (run, whole))
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


def test_one_process(folder: Path) -> None:
    chance, kills, done = random.Random(3), 0, False
    while not done:
        since = len(lines(folder / "killed"))
        command = d2v(*KEYS, "out=killed")
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, stdout=output, stderr=output)
            if kills < 14:
                wait_for_progress(folder / "killed", process, since)
                time.sleep(chance.random() * 0.6)
                process.send_signal(signal.SIGKILL)
            done = process.wait(timeout=200) != -signal.SIGKILL
        kills += not done
    assert process.returncode == 0, (folder / "output").read_text()[-3000:]
    assert kills == 14
    same(folder, "killed", "whole-1")


@pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")
def test_one_rank_of_two_with_restarts_of_torchrun(folder: Path) -> None:
    chance, kills = random.Random(4), 0
    command = d2v(*KEYS, "out=killed-2", processes=2, restarts=6)
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, stdout=output, stderr=output)
        while kills < 6:
            wait_for_progress(folder / "killed-2", process, len(lines(folder / "killed-2")))
            time.sleep(chance.random() * 0.6)
            ranks = workers_of(process.pid)
            if process.poll() is not None or len(ranks) != 2:
                break
            os.kill(chance.choice(ranks), signal.SIGKILL)
            kills += 1
        process.wait(timeout=300)
    assert process.returncode == 0, (folder / "output").read_text()[-3000:]
    assert kills == 6
    same(folder, "killed-2", "whole-2")
