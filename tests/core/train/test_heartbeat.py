"""A rank that waits for the others names those that did not come."""

import json
import logging
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from building import NEW
from torch import distributed as dist
from torch import nn
from training import train

from d2v.core.model import Batch, Data2Vec
from d2v.core.train import RankError, Validation, heartbeat, loop, state
from d2v.core.train.heartbeat import Heartbeat

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")
SCRIPT = Path(__file__).with_name("waiting_worker.py")


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("stopped", r"rank 1 \(last seen \d+ s ago, computing update 5\) did not come within train\.timeout=3 seconds"),
        ("stuck", r"rank 1 \(alive, reading data in update 4\) did not come within train\.timeout=3 seconds"),
        ("killed", "another rank has ended"),
    ],
)
def test_a_rank_that_does_not_come(what: str, words: str) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = (sys.executable, SCRIPT)
    first, second = (
        subprocess.Popen((*command, str(rank), str(port), what), text=True, stderr=subprocess.PIPE) for rank in (0, 1)
    )
    begin = time.monotonic()
    try:
        _, said = first.communicate(timeout=100)
        assert second.poll() is None or what == "killed"
    finally:
        first.kill()
        second.kill()
        second.communicate()
    assert first.returncode == 1
    error = said.strip().splitlines()[-1]
    assert re.search(rf"RankError: {words}.*resume=true", error), said
    if what != "killed":
        assert "rank 0 has waited 2 s for the others: rank 1" in said
    assert time.monotonic() - begin < 90


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dist.HashStore:
    """The store of rank 0 of three, in this process."""
    found = dist.HashStore()
    monkeypatch.setattr(heartbeat, "world", lambda: (0, 3))
    monkeypatch.setattr(heartbeat, "_own_store", lambda _: found)
    monkeypatch.setattr(heartbeat, "_set_timeout", lambda _: None)
    return found


class Now:
    step, doing = 12, "computing"


def told(store: dist.HashStore, rank: int, **changes: object) -> None:
    values = {"beats": 1, "step": 12, "doing": "computing", "time": time.time(), **changes}
    store.set(f"heartbeat-{rank}", json.dumps(values))


def waited(store: dist.HashStore, error: Exception, *alive: int, beats: int = 10, **changes: object) -> str:
    """What rank 0 says at an error after some beats, a second, while some ranks go on to tell the same."""
    try:
        with Heartbeat(Now(), timeout=1.0):
            for beat in range(beats):
                for rank in alive:
                    told(store, rank, beats=beat, **changes)
                time.sleep(0.11)
            raise error
    except (RuntimeError, ValueError) as caught:
        return f"{type(caught).__name__}: {caught}"


TIME_OUT = RuntimeError("[gloo/transport] Timed out waiting 1000ms for recv operation to complete")


def test_it_tells_where_it_is(store: dist.HashStore) -> None:
    with Heartbeat(Now(), timeout=1.0):
        time.sleep(0.3)
    found = json.loads(store.get("heartbeat-0"))
    assert (found["step"], found["doing"]) == (12, "computing")
    assert found["beats"] > 1


def test_silent_ranks_are_named(store: dist.HashStore, caplog: pytest.LogCaptureFixture) -> None:
    told(store, 1, step=11, doing="saving", time=time.time() - 31)
    with caplog.at_level(logging.WARNING):
        said = waited(store, TIME_OUT, 2)
    assert re.search(r"RankError: rank 1 \(last seen 3[23] s ago, saving after update 11\) did not come", said)
    assert "train.timeout=1 " in said
    assert "rank 2" not in said
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_the_timeout_of_the_callers_own_group_is_not_a_key_of_a_recipe(store: dist.HashStore) -> None:
    with pytest.raises(RankError, match="process group") as caught, Heartbeat(Now()):
        raise TIME_OUT
    assert "train.timeout" not in str(caught.value)


def test_a_rank_that_never_came(store: dist.HashStore) -> None:
    assert "rank 2 (never seen)" in waited(store, TIME_OUT, 1)


def test_ranks_behind_are_named_although_alive(store: dist.HashStore) -> None:
    said = waited(store, TIME_OUT, 1, 2, doing="reading data")
    assert "rank 1 (alive, reading data in update 13), rank 2 (alive" in said


def test_nobody_is_named_without_reason(store: dist.HashStore, caplog: pytest.LogCaptureFixture) -> None:
    assert "all of which show signs of life" in waited(store, TIME_OUT, 1, 2)
    assert not caplog.records
    waited(store, TIME_OUT, 1, 2, doing="computing", step=13)  # this rank is the late one
    assert not caplog.records


def test_other_errors_pass(store: dist.HashStore) -> None:
    assert waited(store, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 1, 2, beats=1).startswith(
        "RuntimeError"
    )
    assert waited(store, ValueError("Timed out"), 1, 2, beats=1).startswith("ValueError")
    ended = RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1")
    assert "RankError: another rank has ended" in waited(store, ended, 1, 2, beats=1)


def test_what_a_rank_is_doing_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = []
    seen: list[tuple[str, str]] = []

    class Watched(Heartbeat):
        def __init__(self, now: Any, *, timeout: float | None) -> None:
            states.append(now)
            super().__init__(now, timeout=timeout)

    def noted(module: nn.Module, inputs: tuple[Batch, ...]) -> None:
        seen.append(("step", states[0].doing))

    def validated() -> dict[str, float]:
        seen.append(("validation", states[0].doing))
        return {}

    monkeypatch.setattr(loop, "Heartbeat", Watched)
    model: Data2Vec = NEW.build()
    model.register_forward_pre_hook(noted)
    rule = Validation(run=validated, every=2)
    train(tmp_path, config=NEW, model=model, validation=rule, accumulate=1, checkpoint_every=3)
    assert seen.count(("step", "computing")) == 8  # those after a validation or a checkpoint, too
    assert seen.count(("validation", "validating")) == 4
    assert len(seen) == 12


def test_only_the_rank_that_writes_a_checkpoint_is_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gathering:
        def tensors(self, model: nn.Module) -> dict[str, Any]:
            gathering.append(now.doing)
            return {}

        optimizer_state = tensors

    gathering: list[str] = []
    monkeypatch.setattr(state, "world", lambda: (1, 2))
    parts: dict[str, Any] = dict.fromkeys(("data", "optimizer"))
    now = state.TrainingState(model=nn.Linear(2, 2), **parts, strategy=Gathering(), accumulate=1)
    run: Any = object()
    now.save(run)
    assert gathering == ["saving", "saving"]
    assert now.doing == "computing"


def test_one_process_has_no_thread() -> None:
    with pytest.raises(RuntimeError, match=r"^Timed out$"), Heartbeat(Now(), timeout=1.0):
        raise RuntimeError("Timed out")
    assert issubclass(RankError, RuntimeError)
