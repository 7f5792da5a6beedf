"""The largest batch of each published size that fits into the memory of a GPU, in bf16.

Batches are doubled until one does not fit; then the steps between are tried, down to an eighth of the last that fitted.
Each size and formulation runs in a separate process, so that nothing is left of the one before.

    python benchmarks/largest.py --modality vision
    python benchmarks/largest.py --device cpu --toy                 # does it run?
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable

import torch
from formulations import Case, library_step, plain_step

MODELS = {
    "vision": ("vision/base", "vision/large", "vision/huge14"),
    "audio": ("audio/base", "audio/large"),
    "text": ("text/base", "text/large"),
}
FORMULATIONS = {"library": library_step, "plain": plain_step}
_TOY_LIMIT = 2  # in place of a GPU's memory


def largest(fits: Callable[[int], bool]) -> int:
    """Return the largest number that fits, to an eighth; 0 = none.

    >>> largest(lambda batch: batch <= 100), largest(lambda batch: batch <= 3), largest(lambda batch: False)
    (96, 3, 0)
    """
    if not fits(1):
        return 0
    found = 1
    while fits(2 * found):
        found *= 2
    step, smallest = found // 2, max(found // 8, 1)
    while step >= smallest:
        if fits(found + step):
            found += step
        step //= 2
    return found


def fits(name: str, formulation: str, batch: int, *, device: str, toy: bool) -> bool:
    """Return whether two steps fit."""
    if toy and batch > _TOY_LIMIT:
        return False
    try:
        step = FORMULATIONS[formulation](Case.of(name, toy=toy), batch, device, precision="bf16")
        step()
        step()
    except torch.OutOfMemoryError:
        return False
    finally:
        step = None
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    return True


def measured(name: str, formulation: str, args: argparse.Namespace) -> dict[str, object]:
    """Measure in a separate process."""
    own = ["--one", f"{name},{formulation}", "--device", args.device, *(["--toy"] if args.toy else [])]
    row: dict[str, object] = {"model": name, "variant": formulation}
    try:
        done = subprocess.run([sys.executable, __file__, *own], capture_output=True, text=True, timeout=args.limit)
    except subprocess.TimeoutExpired:
        return row | {"problem": f"not done after {args.limit:g} s"}
    if done.returncode:
        return row | {"problem": done.stderr.strip().splitlines()[-1]}
    return row | {"largest": int(done.stdout)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", choices=list(MODELS), default="vision")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=float, default=75, help="seconds for one size and formulation")
    parser.add_argument("--json", metavar="FILE", help="one object a line")
    parser.add_argument("--toy", action="store_true", help="the same compositions in a size for tests")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, formulation = args.one.split(",")
        print(largest(lambda batch: fits(name, formulation, batch, device=args.device, toy=args.toy)))
        return
    rows = [measured(name, formulation, args) for name in MODELS[args.modality] for formulation in FORMULATIONS]
    lines = [json.dumps(row) for row in rows]
    print("\n".join(lines))
    if args.json:
        with open(args.json, "w") as file:  # noqa: PTH123 - may be /dev/stdout
            file.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
