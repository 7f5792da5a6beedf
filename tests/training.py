"""Small trainings in run folders, ways to break them, and the comparison of two that must be equal."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import torch
from building import NEW, toy_batch, with_student
from torch import Tensor, nn

from d2v.core.files import to_plain
from d2v.core.model import Batch, BlockConfig, Data2VecConfig
from d2v.core.monitor import CollapseMonitor
from d2v.core.train import (
    BatchSource,
    CosineSchedule,
    JsonLines,
    MemorySource,
    MetricSink,
    PublishedAdamW,
    RunFolder,
    fit,
    parameter_groups,
)

STEPS = 8
NOISY = with_student(
    NEW, encoder=attrs.evolve(NEW.student.encoder, block=BlockConfig(embed_dim=16, num_heads=2, dropout=0.1))
)


class Boom(Exception):
    """An error that the tests raise; nothing in d2v catches it."""


def boom() -> None:
    raise Boom


def opened(path: Path, **options: Any) -> RunFolder:
    """A run folder of NOISY, to go on in."""
    return RunFolder(
        path, **{"config": "seed: 0\n", "description": {"model": to_plain(NOISY)}, "resume": True, **options}
    )


def toy_data() -> MemorySource:
    torch.manual_seed(2)
    return MemorySource([toy_batch(ids=torch.arange(3) + 3 * i) for i in range(5)])


def train(
    path: Path,
    *,
    hooks: Sequence[object] = (),
    data: BatchSource | None = None,
    config: Data2VecConfig = NOISY,
    model: nn.Module | None = None,
    sinks: Sequence[MetricSink] = (),
    **options: Any,
) -> None:
    """STEPS updates in a run folder, five batches an epoch and two an update; goes on with what is there."""
    torch.manual_seed(1)
    model = config.build() if model is None else model
    optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.05))
    run = opened(path, description={"model": to_plain(config)})
    options = {
        "accumulate": 2,
        "clip": 1.0,
        "log_every": 2,
        "checkpoint_every": 3,
        "monitor": CollapseMonitor(stop=False),
        **options,
    }
    try:
        fit(
            model,
            data or toy_data(),
            optimizer=optimizer,
            schedule=CosineSchedule(1e-2, total=STEPS, warmup=2),
            max_steps=STEPS,
            run=run,
            sinks=[JsonLines(run.metrics), *sinks],
            hooks=hooks,
            **options,
        )
    finally:
        run.close()


def lines(path: Path) -> list[dict[str, float]]:
    """The metrics of a run, without those about time."""
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "data_wait"} for line in found]


def same(path: Path, other: Path) -> None:
    """Two runs ended with the same weights and the same training state, bit for bit, and wrote the same lines."""
    for name in ("model/model.safetensors", f"checkpoints/step-{STEPS}/model.safetensors"):
        assert (path / name).read_bytes() == (other / name).read_bytes(), name
    ours, theirs = (torch.load(p / f"checkpoints/step-{STEPS}/training.pt", weights_only=True) for p in (path, other))
    assert flat(ours) == flat(theirs)
    assert lines(path) == lines(other)
    assert [line["step"] for line in lines(path)] == [2, 4, 6, 8]


def flat(state: Any) -> Any:
    """A training state in values that can be compared: lists for tensors, texts for numbers (NaN equals itself)."""
    if isinstance(state, Tensor):
        return repr((state.dtype, state.tolist()))
    if isinstance(state, dict):
        return {key: flat(value) for key, value in state.items()}
    return [flat(value) for value in state] if isinstance(state, list | tuple) else repr(state)


class At:
    """Acts at the end of an update."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step, self.act = step, act

    def on_step_end(self, step: int) -> None:
        if step == self.step:
            self.act()


class Breaking:
    """A source that breaks instead of giving its batch of this number, counted from 1."""

    def __init__(self, source: BatchSource, *, batch: int) -> None:
        self.source, self.batch = source, batch

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.source.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        yield from islice(self.source, self.batch - 1)
        raise Boom


def breaking(function: Callable[..., None], when: Callable[..., bool], *, after: bool = False) -> Callable[..., None]:
    """The function, but where `when` says so of its arguments it breaks, before or after its work."""

    def run(*args: Any, **options: Any) -> None:
        broken = when(*args)
        if broken and not after:
            raise Boom
        function(*args, **options)
        if broken:
            raise Boom

    return run


def started(statement: str, path: Path, *folders: Path) -> subprocess.Popen[str]:
    """A process of its own that runs a statement with `path`, `training` and `time`, on one thread as the tests do."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "path = Path(sys.argv[1]); sys.path[:0] = sys.argv[2:]\n"
        "import torch; torch.set_num_threads(1)\n"
        f"import training\n{statement}"
    )
    command = [sys.executable, "-c", program, str(path), *map(str, [*folders, Path(__file__).parent])]
    return subprocess.Popen(command, text=True)


def wait_for_line(path: Path, step: int, process: "subprocess.Popen[str]") -> None:
    """Return when a run of another process has written the metrics of a step."""
    metrics, until = path / "metrics.jsonl", time.monotonic() + 100
    while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
