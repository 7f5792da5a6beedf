"""Time and peak memory of a training step of a published size in two formulations.

The step in plain formulas (formulations.py) and the library's alternate in one process, so that both see the same
noise; compare the ratio of the medians. Peak memory is measured in a separate process for each. Example:
`python benchmarks/step.py --model vision/base --batch 2 --steps 5 --json`. For a GPU, use gpu.py.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from formulations import Case, Step, library_step, plain_step

from d2v.core.files import ConfigError
from d2v.core.registry import UnknownNameError


def timed(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, with the variants alternating."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):  # the first is a warm-up
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_:
                times[name].append(time.perf_counter() - start)
    return times


def peak_memory(args: argparse.Namespace, variant: str) -> float:
    """Peak GiB of two steps in a separate process; on an accelerator, of its memory."""
    command = [sys.executable, __file__, "--model", args.model, "--batch", str(args.batch), "--device", args.device]
    done = subprocess.run([*command, "--memory-of", variant], capture_output=True, text=True, check=True)
    return float(done.stdout)


def memory_of_this_process(step: Step, device: str) -> float:
    """Peak GiB after two steps."""
    step()
    step()
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="RECIPE", default="vision/base")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", choices=["library", "plain"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        case = Case.of(args.model)
    except (UnknownNameError, ConfigError) as error:
        parser.error(str(error))
    makers: dict[str, Callable[[], Step]] = {
        "library": lambda: library_step(case, args.batch, args.device),
        "plain": lambda: plain_step(case, args.batch, args.device),
    }
    if args.memory_of:
        print(memory_of_this_process(makers[args.memory_of](), args.device))
        return
    # Do this first, while this process is small: on Linux, a child inherits its parent's peak.
    peaks = {name: peak_memory(args, name) for name in makers}
    times = timed({name: make() for name, make in makers.items()}, args.steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result: dict[str, Any] = {"model": args.model, "batch": args.batch, "steps": args.steps}
    result |= {"device": args.device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    result |= {"seconds": medians, "peak_gib": peaks}
    result["plain_over_library"] = medians["plain"] / medians["library"]
    print(json.dumps(result) if args.json else "\n".join(f"{key}: {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
