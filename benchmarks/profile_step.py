"""Profile a training step on a GPU: the costliest operators, kernels, gaps and waits.

python benchmarks/profile_step.py --model vision/base
"""

import argparse
import time
from typing import Any

import torch
from formulations import Case, library_step
from gpu import BATCHES
from torch.profiler import ProfilerActivity, profile

UPDATES = 3
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vision/base")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--toy", action="store_true", help="the same composition in a size for tests")
    args = parser.parse_args()
    cuda = args.device.startswith("cuda")
    batch = args.batch or (2 if args.toy else BATCHES[args.model])
    step = library_step(
        Case.of(args.model, toy=args.toy), batch, args.device, precision=args.precision, compiled=args.compiled
    )
    for _ in range(3):
        step()
    torch.cuda.synchronize() if cuda else None
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    bare = clocked(step, cuda)
    with profile(activities=activities) as found:
        profiled = clocked(step, cuda)
    print(f"{args.model}, batch {batch}, {args.precision}{', compiled' if args.compiled else ''}, {args.device}")
    print(f"{1e3 * bare[0]:.1f} ms an update; {1e3 * bare[1]:.1f} ms of it until the CPU had launched everything")
    print(f"profiled: {1e3 * profiled[0]:.1f} ms an update")
    if cuda:
        print(summary(found, profiled[0] * UPDATES))
    by = "self_device_time_total" if cuda else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=by, row_limit=45, max_name_column_width=80))
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))


def clocked(step: Any, cuda: bool) -> tuple[float, float]:
    """Seconds of an update, and seconds until the CPU had launched it."""
    start = time.perf_counter()
    for _ in range(UPDATES):
        step()
    launched = time.perf_counter()
    torch.cuda.synchronize() if cuda else None
    return (time.perf_counter() - start) / UPDATES, (launched - start) / UPDATES


def summary(found: Any, seconds: float) -> str:
    """Summarise kernels, busy time, gaps and waits of an update."""
    kernels = sorted(
        (event.time_range.start, event.time_range.end)
        for event in found.events()
        if event.device_type.name == "CUDA" and event.time_range.end > event.time_range.start
    )
    busy, gaps, end = 0.0, [], kernels[0][0]
    for begin, finish in kernels:
        if begin > end:
            gaps.append(begin - end)
        busy += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    counts = {event.key: event.count / UPDATES for event in found.key_averages() if event.key in WAITS}
    long = [gap for gap in gaps if gap > 20]
    return (
        f"an update: {len(kernels) / UPDATES:.0f} kernels and copies, the GPU busy for {busy / UPDATES / 1e3:.1f} ms "
        f"({100 * busy / 1e6 / seconds:.0f} % of the profiled time); gaps above 20 microseconds: "
        f"{len(long) / UPDATES:.1f} with {sum(long) / UPDATES / 1e3:.2f} ms, the longest "
        f"{max(gaps, default=0) / 1e3:.2f} ms; waits of the CPU: {counts}"
    )


if __name__ == "__main__":
    main()
