"""Runs that are killed, stopped or hang at random moments end as one that was never interrupted.

`pytest -s` shows the seed and what each kill met.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]
several = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")
UPDATES = 200  # a random kill may let ten pass on a fast machine
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
PHASES = {"t": "training", "v": "validation", "c": "checkpoint", "-": "start"}
PROGRAM = str(Path(__file__).with_name("phases.py"))


def d2v(*arguments: str, processes: int = 1, restarts: int = 0, program: tuple[str, ...] = ("-m", "d2v")) -> list[str]:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", f"--max-restarts={restarts}")
    return [sys.executable, *(torchrun if processes == 2 else ()), *program, *arguments]


def workers_of(process: int) -> list[int]:
    """Processes that this one has started, in the order of their ranks."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == process:
            found.append(int(entry.parent.name))
    return sorted(found)


def lines(folder: Path) -> list[dict[str, float]]:
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for_progress(folder: Path, process: "subprocess.Popen[str]", since: int) -> None:
    """Wait until the run has more lines than that, so that every start gets somewhere."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        file = folder / "metrics.jsonl"
        if file.exists() and file.read_bytes().count(b"\n") > since:
            return
        time.sleep(0.02)


def wait_for_phase(file: Path, phase: str, process: "subprocess.Popen[str]") -> None:
    """Wait until a process enters a phase."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and file.read_text()[:1] != phase:
        time.sleep(0.0005)


class Kills:
    """Phases that random kills must meet; a kill that misses its phase counts, and the phase is tried again."""

    def __init__(self, seed: int, **wanted: int) -> None:
        self.chance, self.met = random.Random(seed), Counter[str]()
        self.left = [phase for phase, count in wanted.items() for _ in range(count)]
        self.chance.shuffle(self.left)
        print(f"seed {seed}")

    def kill(self, file: Path, process: "subprocess.Popen[str]", victim: int) -> None:
        """Kill a process in the next phase, which another thread of it may leave first."""
        phase = self.left[-1]
        wait_for_phase(file, phase, process)
        time.sleep(self.chance.random() * (0.3 if phase == "t" else 0.02))
        os.kill(victim, signal.SIGKILL)
        met = file.read_text()[:1]
        self.met[PHASES[met]] += 1
        if met in self.left:
            self.left.remove(met)
        print(f"kill {self.met.total()} met {PHASES[met]}")


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


@contextmanager
def started(folder: Path, command: list[str], *, own_group: bool = False) -> Iterator["subprocess.Popen[str]"]:
    """A running command; `output` in the folder has what it says."""
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            text=True,
            stdout=output,
            stderr=output,
            start_new_session=own_group,
        )
        try:
            yield process
        finally:
            for one in (*workers_of(process.pid), process.pid):
                if process.poll() is None:
                    os.kill(one, signal.SIGKILL)
            process.wait()


def said(folder: Path) -> str:
    return (folder / "output").read_text()[-5000:]


def same(folder: Path, run: str, whole: str) -> None:
    found, expected = (lines(folder / name) for name in (run, whole))
    assert [line["step"] for line in found] == list(range(1, UPDATES + 1))
    for one, other in zip(found, expected, strict=True):
        one.pop("data_wait"), other.pop("data_wait")
        assert one == other
    weights, others = (load_file(folder / name / "model/model.safetensors") for name in (run, whole))
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


def test_twenty_kills(folder: Path) -> None:
    kills = Kills(3, t=8, v=6, c=6)
    phases = folder / "phases"
    phases.mkdir()
    while kills.left:
        since = len(lines(folder / "killed"))
        with started(folder, d2v(*KEYS, "out=killed", program=(PROGRAM, str(phases)))) as process:
            wait_for_progress(folder / "killed", process, since)
            assert process.poll() is None, f"{kills.left} are left\n{said(folder)}"
            kills.kill(phases / "0", process, process.pid)
            assert process.wait(timeout=60) == -signal.SIGKILL
    assert kills.met.total() >= 20
    assert min(kills.met[phase] for phase in ("training", "validation", "checkpoint")) >= 6
    with started(folder, d2v(*KEYS, "out=killed")) as process:
        assert process.wait(timeout=300) == 0, said(folder)
    same(folder, "killed", "whole-1")


@several
def test_one_rank_of_two_with_restarts_of_torchrun(folder: Path) -> None:
    kills = Kills(4, t=2, v=2, c=2)
    phases = folder / "phases-2"
    phases.mkdir()
    command = d2v(*KEYS, "out=killed-2", processes=2, restarts=20, program=(PROGRAM, str(phases)))
    with started(folder, command) as process:
        while kills.left:
            wait_for_progress(folder / "killed-2", process, len(lines(folder / "killed-2")))
            ranks = workers_of(process.pid)
            assert process.poll() is None, f"{kills.left} are left\n{said(folder)}"
            if len(ranks) != 2:
                continue
            rank = 0 if kills.left[-1] == "c" else kills.chance.randrange(2)  # the first one writes
            kills.kill(phases / str(rank), process, ranks[rank])
            while ranks[rank] in workers_of(process.pid):
                time.sleep(0.05)
        assert process.wait(timeout=400) == 0, said(folder)
    same(folder, "killed-2", "whole-2")


def steps(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def test_sigterm_saves_and_has_its_own_exit_code(folder: Path) -> None:
    begun = 0
    for delay in (0.0, 0.15, 0.4):
        with started(folder, d2v(*KEYS, "out=terminated")) as process:
            wait_for_progress(folder / "terminated", process, len(lines(folder / "terminated")))
            time.sleep(delay)
            process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            assert process.wait(timeout=60) == 143, said(folder)
        assert time.monotonic() - begin < 30
        stopped = re.search(r"stopped after (\d+) updates; continue with resume=true", said(folder))
        assert stopped, said(folder)
        assert steps(folder / "terminated")[-1] == int(stopped[1]) > begun
        begun = int(stopped[1])
    subprocess.run(d2v(*KEYS, "out=terminated"), cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    same(folder, "terminated", "whole-1")


@several
@pytest.mark.parametrize("how", ["torchrun", "the group", "one rank"])
def test_all_ranks_stop_after_the_same_update(folder: Path, how: str) -> None:
    run = folder / f"stopped-{how.replace(' ', '-')}"
    keys = (*KEYS, f"out={run.name}")
    with started(folder, d2v(*keys, processes=2), own_group=True) as process:
        wait_for_progress(run, process, 3 if how == "one rank" else 4)
        ranks = workers_of(process.pid)
        assert len(ranks) == 2
        if how == "the group":  # Ctrl-C on a terminal: each rank hears of it twice, once from torchrun
            os.killpg(process.pid, signal.SIGINT)
        else:
            os.kill(ranks[1] if how == "one rank" else process.pid, signal.SIGTERM)
        assert process.wait(timeout=90) != 0
    stopped = re.findall(r"stopped after (\d+) updates", said(folder))
    assert len(stopped) == 2, said(folder)
    assert stopped[0] == stopped[1]
    assert steps(run)[-1] == int(stopped[0]) < UPDATES
    # Without a line: the update whose validation was stopped, which the next start repeats.
    assert len(lines(run)) in ((int(stopped[0]),) if int(stopped[0]) % 3 else (int(stopped[0]), int(stopped[0]) - 1))
    command = d2v(*keys, processes=2)
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    same(folder, run.name, "whole-2")


@several
def test_a_rank_that_hangs_is_named_and_the_run_goes_on(folder: Path) -> None:
    command = d2v(*KEYS, "out=hung", "train.timeout=8", processes=2, restarts=1)
    with started(folder, command) as process:
        wait_for_progress(folder / "hung", process, 6)
        ranks = workers_of(process.pid)
        os.kill(ranks[1], signal.SIGSTOP)
        assert process.wait(timeout=300) == 0, said(folder)
    text = (folder / "output").read_text()
    assert re.search(r"rank 1 \(last seen \d+ s ago, .*\) did not come within train\.timeout=8 seconds", text), text
    same(folder, "hung", "whole-2")
