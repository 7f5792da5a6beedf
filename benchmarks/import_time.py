"""Import time that `import d2v.core` adds to `import torch`: medians over new processes.

    python benchmarks/import_time.py --runs 11 --json

Caches and other processes affect both in the same way, so the two alternate and their medians are compared. Bytecode
is always written, as after an installation, whatever `PYTHONDONTWRITEBYTECODE` says here.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

STATEMENTS = {"torch": "import torch", "torch and d2v.core": "import torch, d2v.core"}


def seconds(statement: str) -> float:
    """Time of a statement in a new process, without the start of the interpreter."""
    program = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Import time of d2v.core over torch.")
    parser.add_argument("--runs", type=int, default=11, help="processes for each statement (default: 11)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error(f"--runs must be at least 1, not {args.runs}")

    for statement in STATEMENTS.values():
        seconds(statement)  # the first run reads the files from disk and writes bytecode
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(args.runs):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    torch, both = (statistics.median(times[name]) for name in STATEMENTS)
    result = {"runs": args.runs, "torch_s": torch, "both_s": both, "added_s": both - torch, "ratio": both / torch}
    if args.json:
        print(json.dumps({key: round(value, 4) for key, value in result.items()}))
    else:
        print(f"import torch {torch:.3f} s, with d2v.core {both:.3f} s: {both - torch:+.3f} s, {both / torch:.3f}x")


if __name__ == "__main__":
    main()
