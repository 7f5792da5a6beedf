"""What a run of 1,000 processes on 100 TB would cost, computed with the library's own classes on one machine.

- The order: the first batches of all processes, and those around a change of their number, hold each sample once.
- Resuming: seconds until a process knows its next batch, at the beginning and in the middle of an epoch.
- Memory: of the plan of a process. Positions are computed, so it does not grow with the data.
- Checkpoints: bytes by the sizes of the models, seconds by the speed at which this machine's disk writes them.

    python benchmarks/scale.py
    python benchmarks/scale.py --processes 64 --samples 1e9 --batch 32
"""

import argparse
import os
import tempfile
import time
import tracemalloc
from itertools import islice
from pathlib import Path

import torch
from published import config_of

from d2v.core.data import FixedPlan
from d2v.core.unfilled import without_values

_SAMPLE = 110_000  # bytes of a photograph
_TERABYTES, _FLOAT, _MB = 100, 4, 1e6
_LOOKED_AT = 3  # batches of each process
MODELS = ("vision/base", "vision/large", "vision/huge14", "audio/large", "text/large")


def plan_of(args: argparse.Namespace, rank: int, processes: int | None = None) -> FixedPlan:
    """The plan of a process."""
    return FixedPlan(n=args.samples, batch_size=args.batch, rank=rank, world_size=processes or args.processes)


def order(args: argparse.Namespace) -> str:
    """Look at batches of all processes, then go on with half of them."""
    seen: list[torch.Tensor] = []
    half = args.processes // 2
    for rank in range(args.processes):
        requests = plan_of(args, rank).requests(0)
        seen += [torch.tensor(request.ids) for request in islice(requests, _LOOKED_AT)]
    taken = _LOOKED_AT * args.batch * args.processes
    for rank in range(half):
        requests = plan_of(args, rank, half).requests(0, skip=taken)
        seen += [torch.tensor(request.ids) for request in islice(requests, _LOOKED_AT)]
    ids = torch.cat(seen)
    twice = len(ids) - len(ids.unique())
    steps = plan_of(args, 0).num_batches(0)
    left = args.samples - steps * args.batch * args.processes
    return (
        f"order: {len(ids):,} samples of {args.processes:,} and then {half:,} processes, {twice} of them twice; an "
        f"epoch has {steps:,} updates and leaves out {left:,} samples"
    )


def resuming(args: argparse.Namespace) -> str:
    """Time the first batch from two places."""
    plan = plan_of(args, args.processes - 1)
    times = []
    for first in (0, plan.num_batches(0) // 2):
        begin = time.perf_counter()
        next(plan.requests(1, first))
        times.append(1000 * (time.perf_counter() - begin))
    return f"next batch: {times[0]:.1f} ms at the beginning of an epoch, {times[1]:.1f} ms in the middle"


def memory(args: argparse.Namespace) -> str:
    """Measure what Python allocates for a plan and 1,000 of its batches."""
    tracemalloc.start()
    plan = plan_of(args, 0)
    for _ in islice(plan.requests(0), 1000):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return f"plan: {peak / 1000:.0f} kB of Python objects per process"


def checkpoints(folder: Path) -> list[str]:
    """Bytes of a checkpoint of each model, and seconds at the speed of a file of 1 GB."""
    path = folder / "block"
    begin = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(100):
            file.write(bytes(10_000_000))
        os.fsync(file.fileno())
    speed = 1e9 / (time.perf_counter() - begin)
    lines = [
        f"disk: {speed / _MB:.0f} MB/s",
        "",
        "| model | student | teacher | checkpoint, GB | seconds |",
        "|---|---|---|---|---|",
    ]
    for name in MODELS:
        with without_values():
            model = config_of(name).build()
        trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
        teacher = sum(one.numel() for one in model.teacher.parameters())
        size = _FLOAT * (sum(one.numel() for one in model.state_dict().values()) + 2 * trained)
        lines.append(
            f"| {name} | {trained / 1e6:.0f} M | {teacher / 1e6:.0f} M | {size / 1e9:.2f} | {size / speed:.0f} |"
        )
    return lines


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1000)
    parser.add_argument("--samples", type=lambda text: int(float(text)), default=int(_TERABYTES * 1e12 / _SAMPLE))
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    print(f"{args.samples:,} samples ({args.samples * _SAMPLE / 1e12:.0f} TB), batches of {args.batch}")
    print(order(args), resuming(args), memory(args), sep="\n")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        print(*checkpoints(Path(folder)), sep="\n")


if __name__ == "__main__":
    main()
