"""Time, memory and speed of a training step of published sizes in two formulations.

The step in plain formulas (formulations.py) and the library's alternate in one process, so that both see the same
noise; compare the ratio of the medians. On one CPU thread, seconds are CPU seconds of the process. Memory is measured
in a separate process for each: `peak_gib` is the peak of a step, and `above_gib` that above what is held between two
steps (weights, moments, gradients). FLOPs are by formula, and `share` is what a formulation reaches of the speed of
this machine's linear layers with the kernels in use. `waits` is how often an update of the modality waits for the
device (waits.py).

    python benchmarks/step.py --models vision/base,audio/base,text/base --precisions fp32,bf16 --json

For a GPU, gpu.py compares more.
"""

import argparse
import ctypes
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import torch
from flops import flops_of, peak_of
from formulations import Case, Step, library_step, plain_step
from phases import PHASES, Phases
from waits import SIMULATED, waits_of

from d2v.core import Batch, Data2Vec
from d2v.core.files import ConfigError
from d2v.core.jobs.kernels import kernels_of, processor
from d2v.core.precision import Precision
from d2v.core.registry import UnknownNameError
from d2v.core.train.preparing import checkpoint_activations

MODELS = ("vision/base", "audio/base", "text/base")
VARIANTS = ("library", "plain")
_GIB = 2**30


def measured(args: argparse.Namespace, name: str, precision: Precision) -> dict[str, Any]:
    """Measure a model in a precision."""
    # Do this first, while this process is small: on Linux, a child inherits its parent's peak.
    memories = {variant: memory(args, name, precision, variant) for variant in VARIANTS}
    phases, models, case = Phases(clock), list[Data2Vec](), case_of(args, name)
    steps = {variant: step_of(args, case, precision, variant, models.append, phases) for variant in VARIANTS}
    seconds = {variant: statistics.median(found) for variant, found in timed(steps, args.steps).items()}
    (model,) = models
    phases.watch(model)
    steps["library"]()
    source = case.samples(args.batch)
    mask = model.mask(Batch(source=source), case.positions(source), update=0)
    row: dict[str, Any] = {"model": name, "precision": precision, "batch": args.batch}
    row |= {variant: {"seconds": seconds[variant], **memories[variant]} for variant in VARIANTS}
    row["ratio_seconds"] = seconds["library"] / seconds["plain"]
    row["ratio_above"] = memories["library"]["above_gib"] / memories["plain"]["above_gib"]
    row |= {"kernels": kernels_of(model), "gflop": (flops := flops_of(case, args.batch, mask).update) / 1e9}
    if args.device == "cpu":
        peak = peak_of(precision, kernels_of(model), clock)
        row |= {"peak_gflop_s": peak / 1e9, "share": {key: flops / spent / peak for key, spent in seconds.items()}}
    row["phases"] = {name: phases.seconds[name] for name in PHASES}
    row["waits"] = number_of_waits(case.modality, args.device)
    row |= {"input": case.grid, "depth": case.config.student.encoder.depth, "steps": args.steps}
    row["checkpoint_activations"] = args.checkpoint_activations
    row |= {"device": args.device, "processor": processor(), "threads": torch.get_num_threads()}
    return row | {"torch": torch.__version__, "clock": "cpu" if on_one_thread() else "wall"}


@cache  # neither the size nor the precision changes it
def number_of_waits(modality: str, device: str) -> int:
    """How often an update of a modality waits for the device, or for a simulated one."""
    return len(waits_of(f"{modality}/base, 2.0", torch.device(device) if device.startswith("cuda") else SIMULATED))


def case_of(args: argparse.Namespace, name: str) -> Case:
    """Return the case of a name, with the sizes that were asked for."""
    case = Case.of(name, toy=args.toy, depth=args.depth)
    return attrs.evolve(case, **{key: value for key in ("seconds", "tokens") if (value := getattr(args, key))})


def step_of(
    args: argparse.Namespace,
    case: Case,
    precision: Precision,
    variant: str,
    prepare: Callable[[Data2Vec], None] = lambda model: None,
    phases: Phases | None = None,
) -> Step:
    """Return the step of a formulation."""
    if variant == "plain":
        return plain_step(case, args.batch, args.device, precision=precision)

    def prepared(model: Data2Vec) -> None:
        prepare(model)
        if args.checkpoint_activations:
            checkpoint_activations(model)

    kernels = tuple(args.kernels.split(","))
    options: dict[str, Any] = {"precision": precision, "kernels": kernels, "prepare": prepared}
    return library_step(case, args.batch, args.device, phase=(phases or Phases(clock)).phase, **options)


def timed(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, with the variants alternating."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):  # the first is a warm-up
        for name, step in steps.items():
            start = clock()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_:
                times[name].append(clock() - start)
    return times


def clock() -> float:
    """Seconds of this process, or of the wall where several threads or a device work."""
    return time.process_time() if on_one_thread() else time.perf_counter()


def on_one_thread() -> bool:
    """Whether all work is that of one CPU thread."""
    return torch.get_num_threads() == 1 and not torch.cuda.is_available()


def memory(args: argparse.Namespace, name: str, precision: Precision, variant: str) -> dict[str, float]:
    """GiB of a step of a formulation, in a separate process."""
    given = {key: value for key, value in vars(args).items() if value not in (None, False)}
    given |= {"models": name, "precisions": precision, "memory_of": variant}
    command = [sys.executable, __file__]
    for key, value in given.items():
        command += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def memory_of_this_process(step: Step, device: str) -> dict[str, float]:
    """Peak GiB of the third step, and above what this process held before it."""
    step()
    step()
    if device.startswith("cuda"):
        held = torch.cuda.memory_allocated() / _GIB
        torch.cuda.reset_peak_memory_stats()
        step()
        peak = torch.cuda.max_memory_allocated() / _GIB
    else:
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # gives back what was freed
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        held = gib_of_this_process("VmRSS")
        step()
        peak = gib_of_this_process("VmHWM")
    return {"peak_gib": peak, "above_gib": peak - held}


def gib_of_this_process(field: str) -> float:
    """Memory of this process now (VmRSS) or at most (VmHWM); outside of Linux, only the latter is known."""
    path = Path("/proc/self/status")
    if not path.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = (line.split() for line in path.read_text().splitlines() if line.startswith(field))
    return int(next(lines)[1]) / 2**20


def in_words(row: dict[str, Any]) -> str:
    """Return a row as lines of text."""
    lines = [f"{row['model']}, {row['precision']}: {row['ratio_seconds']:.2f} of the time, kernels {row['kernels']}"]
    for variant in VARIANTS:
        one = row[variant]
        share = f", {row['share'][variant]:.0%} of this machine's products" if "share" in row else ""
        gib = f"{one['peak_gib']:.2f} GiB, {one['above_gib']:.2f} above"
        lines.append(f"  {variant:<8} {one['seconds']:.2f} s, {gib}{share}")
    return "\n".join([*lines, "  " + ", ".join(f"{name} {spent:.2f}" for name, spent in row["phases"].items())])


def parsed() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", metavar="RECIPES", default=",".join(MODELS), help="separated by commas")
    parser.add_argument("--precisions", default="fp32,bf16", help="separated by commas")
    parser.add_argument("--kernels", default="auto", help="as train.kernels: auto, plain or names with commas")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="length of recordings (default: 10)")
    parser.add_argument("--tokens", type=int, help="length of texts (default: 512)")
    parser.add_argument("--depth", type=int, help="number of blocks (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint-activations", action="store_true", help="train.checkpoint_activations")
    parser.add_argument("--toy", action="store_true", help="the same compositions in a size for tests")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parsed()
    names, precisions = args.models.split(","), args.precisions.split(",")
    try:
        case = case_of(args, names[0])
    except (UnknownNameError, ConfigError) as error:
        sys.exit(f"step.py: {error}")
    if args.memory_of:
        found = memory_of_this_process(step_of(args, case, precisions[0], args.memory_of), args.device)
        print(json.dumps(found))
        return
    for name in names:
        for precision in precisions:
            row = measured(args, name, precision)
            print(json.dumps(row) if args.json else in_words(row), flush=True)


if __name__ == "__main__":
    main()
