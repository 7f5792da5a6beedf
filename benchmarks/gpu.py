"""Training steps of the published sizes on a GPU: time, samples a second, model FLOP utilisation, memory.

Each size runs in a separate process with a time limit, so that one that does not fit does not end the others. The
library (eager, and with its blocks and decoder compiled) and the plain formulation (formulations.py) alternate; times
are medians over rounds of a few updates each. Memory is the peak of the variant alone.

FLOPs of a step = 3 x the student's forward pass + the teacher's, counted by torch.utils.flop_counter: a backward pass
costs two forward passes. Utilisation is FLOPs divided by the time and the dense peak of the datasheet.

"Graphs" are blocks and decoder compiled into CUDA graphs. A variant that fails is a row with its error.

Models whose distance bias is computed inside the kernel ("distances" in the column of attention) are also measured with
the full bias.

    python benchmarks/gpu.py                                    # or benchmarks/gpu.sh
    python benchmarks/gpu.py --models vision/base --batch 32
    python benchmarks/gpu.py --device cpu --toy --rounds 1      # does it run?
    python benchmarks/gpu.py --table results/*.jsonl            # the rows of earlier runs, of largest.py too
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from formulations import Case, Step, compile_parts, library_step, plain_step
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from d2v.core import Batch
from d2v.core.nn import kernels
from d2v.core.precision import Precision, autocast

BATCHES = {
    "vision/photos": 64,
    "vision/base": 64,
    "vision/large": 32,
    "vision/huge14": 16,
    "audio/base": 12,
    "audio/large": 6,
    "text/base": 16,
    "text/large": 16,
}
# Dense, with fp32 accumulation, from NVIDIA's datasheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12, "3090": 71e12}
BURST = 3
WARM_UP = 2
FULL_BIAS, GRAPHS = "library, full bias", "library, graphs"
VARIANTS = ("library", "library, compiled", GRAPHS, FULL_BIAS, "plain")


def main() -> None:
    """Measure every size in a separate process and print a table, or measure one."""
    args = parsed()
    if args.table:
        print(table([json.loads(line) for file in args.table for line in Path(file).read_text().splitlines()]))
        return
    if args.one:
        for row in rows(args.one, args):
            print(json.dumps(row), flush=True)
        return
    lines = []
    for name in args.models:
        for row in measured(name, args):
            lines.append(row)
            print(as_text(row), file=sys.stderr, flush=True)
    if args.json:
        with open(args.json, "w") as file:  # noqa: PTH123 - may be /dev/stdout
            file.writelines(f"{json.dumps(line)}\n" for line in lines)
    print(table(lines))


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments; None = those of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", type=lambda text: text.split(","), default=list(BATCHES), help="separated by commas"
    )
    parser.add_argument("--variants", type=lambda text: text.split(";"), default=list(VARIANTS), help="separated by ;")
    parser.add_argument("--batch", type=int, help="samples in a batch (default: by size)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=float, default=240, help="seconds for one size")
    parser.add_argument("--json", metavar="FILE", help="one object a line")
    parser.add_argument("--toy", action="store_true", help="the same compositions in a size for tests")
    parser.add_argument("--table", nargs="+", metavar="FILE", help="print the table of these results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if not args.table and args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --toy shows whether the benchmark runs")
    return args


def measured(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of a size, measured in a separate process."""
    own = ["--one", name, "--rounds", str(args.rounds), "--precision", args.precision, "--device", args.device]
    own += ["--variants", ";".join(args.variants), *(["--toy"] if args.toy else [])]
    own += ["--batch", str(args.batch)] if args.batch else []
    try:
        done = subprocess.run([sys.executable, __file__, *own], capture_output=True, text=True, timeout=args.limit)
        output, problem = done.stdout, done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired as late:
        output, problem = (late.stdout or b"").decode(), [f"not done after {args.limit:g} s"]
    yield from (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    yield from ({"model": name, "variant": "-", "problem": line} for line in problem)


def rows(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure a size; yield one row for each variant."""
    device, batch = args.device, args.batch or (2 if args.toy else BATCHES[name])
    case = Case.of(name, toy=args.toy)
    make = {
        "library": partial(library_step, case, batch, device, precision=args.precision),
        "library, compiled": partial(library_step, case, batch, device, precision=args.precision, compiled=True),
        GRAPHS: lambda: with_graphs(case, batch, device, args.precision),
        "plain": partial(plain_step, case, batch, device, precision=args.precision),
    }
    if case.config.student.adapters[case.modality].alibi is not None:
        make[FULL_BIAS] = lambda: with_full_bias(make["library"]())
    common = {"model": name, "batch": batch, "precision": args.precision, "device": device_name(device)}
    common |= {"torch": torch.__version__, "flops": flops(case, device, args.precision)}
    ready: dict[str, tuple[Step, int]] = {}
    forms: dict[str, str] = {}
    for variant in (one for one in args.variants if one in make):
        try:
            ready[variant] = warmed_up(make[variant], device)
            if variant in ("library", FULL_BIAS):
                forms[variant] = attention_forms(ready[variant][0])
        except Exception as error:  # of one variant, which the others do not share
            yield common | {"variant": variant, "problem": problem_of(error)}
    times: dict[str, list[float]] = {variant: [] for variant in ready}
    peaks = dict.fromkeys(ready, 0)
    for _ in range(args.rounds):
        for variant, (step, own) in ready.items():
            seconds, peak = burst(step, own, device)
            times[variant].append(seconds)
            peaks[variant] = max(peaks[variant], peak)
    for variant, found in times.items():
        row = common | {"variant": variant, "seconds": statistics.median(found), "range": max(found) - min(found)}
        yield row | {"peak_gib": peaks[variant] / 2**30, "attention": forms.get(variant, "-")}


def problem_of(error: Exception) -> str:
    """Describe an error in one line; memory that the variant held is freed."""
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return "out of memory"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def with_graphs(case: Case, batch: int, device: str, precision: Precision) -> Step:
    """Return a step whose blocks and decoder are CUDA graphs."""
    step = library_step(
        case, batch, device, precision=precision, prepare=partial(compile_parts, mode="reduce-overhead")
    )

    def marked() -> None:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch does not type it
        step()

    return marked


def with_full_bias(step: Step) -> Step:
    """Return the step with the distance bias as a tensor."""

    def full() -> None:
        with mock.patch.object(kernels, "distances_pay", return_value=False):
            step()

    return full


def attention_forms(step: Step) -> str:
    """Forms of attention that a step uses; see `kernels.attention_form`."""
    seen: set[str] = set()
    choose = kernels.attention_form

    def recorded(q: Tensor, mask: Any, dropout: float) -> str:
        form = choose(q, mask, dropout)
        seen.add(form)
        return form

    with mock.patch.object(kernels, "attention_form", recorded):
        step()
    return ", ".join(sorted(seen))


def warmed_up(make: Callable[[], Step], device: str) -> tuple[Step, int]:
    """Return a warmed-up step, and the bytes that it holds between updates."""
    before = held(device)
    step = make()
    for _ in range(WARM_UP):
        step()
    wait(device)
    return step, held(device) - before


def burst(step: Step, own: int, device: str) -> tuple[float, int]:
    """Return the seconds of an update, and the peak memory of the variant in bytes."""
    others = held(device) - own
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    wait(device)
    start = time.perf_counter()
    for _ in range(BURST):
        step()
    wait(device)
    seconds = (time.perf_counter() - start) / BURST
    return seconds, torch.cuda.max_memory_allocated() - others if device.startswith("cuda") else 0


def held(device: str) -> int:
    """Bytes in use."""
    return torch.cuda.memory_allocated() if device.startswith("cuda") else 0


def wait(device: str) -> None:
    """Wait for the device to finish."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def flops(case: Case, device: str, precision: Precision) -> float:
    """FLOPs of one sample in one step."""
    # Evaluation mode, since layer drop would change the count.
    model, batch = case.config.build().to(device).eval(), Batch(source=case.samples(2).to(device))
    with torch.no_grad(), autocast(precision, torch.device(device)):
        with FlopCounterMode(display=False) as both:
            model(batch, update=0)
        local = model.front(batch)
        with FlopCounterMode(display=False) as teacher:
            model.encode_teacher(batch, local, sink=model.targets)
    model.targets.clear()
    one = teacher.get_total_flops()
    return (3 * (both.get_total_flops() - one) + one) / batch.size


def device_name(device: str) -> str:
    """Name of the device by its driver."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def utilisation(row: dict[str, Any]) -> float | None:
    """Fraction of the datasheet's peak; None = the peak is not known."""
    peak = next((peak for name, peak in PEAKS.items() if name in row["device"]), None)
    return None if peak is None or row["precision"] == "fp32" else row["flops"] * row["batch"] / row["seconds"] / peak


def as_text(row: dict[str, Any]) -> str:
    """Format a row of the table."""
    if "largest" in row:
        return f"| {row['model']} | {row['variant']}, largest batch | {row['largest']} | | | | | |"
    if "problem" in row:
        return f"| {row['model']} | {row['variant']} | {row.get('batch', '')} | {row['problem']} | | | | |"
    share = utilisation(row)
    cells = [row["model"], row["variant"], row["batch"], f"{1e3 * row['seconds']:.1f}"]
    cells += [f"{row['batch'] / row['seconds']:.0f}", "-" if share is None else f"{100 * share:.1f}"]
    return f"| {' | '.join(map(str, cells))} | {row['peak_gib']:.1f} | {row['attention']} |"


def table(lines: list[dict[str, Any]]) -> str:
    """Format all rows as Markdown."""
    first = next((line for line in lines if "device" in line), {})
    head = f"{first.get('device')}, torch {first.get('torch')}, {first.get('precision')}\n\n"
    head += (
        "| model | formulation | batch | ms an update | samples a second | FLOP utilisation, % | peak GiB | attention |"
    )
    return head + "\n|---|---|---|---|---|---|---|---|\n" + "\n".join(map(as_text, lines))


if __name__ == "__main__":
    main()
