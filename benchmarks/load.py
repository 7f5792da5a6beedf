"""How long a published file of base size takes to load, beside reading its bytes.

The file is made here: random weights in the layout of the original toolkit, with the settings of a toy file that the
original wrote. Loading and reading alternate, each in a process of its own, timed without its imports; the file is in
the system's cache. Memory is the peak above that of the imports.

    python benchmarks/load.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from d2v.core.foreign import Converted, read_contents
from d2v.vision.convert import converters

TEMPLATE = Path(__file__).parents[1] / "tests/parity/data/checkpoints/image_pretrain.pt"
BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12, "average_top_k_layers": 10}
ONE = """
import json, re, sys, time
from pathlib import Path
import d2v.core
path, how, toy = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
d2v.core.load(toy)  # imports what loading needs
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000
before, begin = peak(), time.perf_counter()
kept = path.read_bytes() if how == "read" else d2v.core.load(path)
print(json.dumps([time.perf_counter() - begin, peak() - before]))
"""


def write_base(path: Path) -> int:
    """Write the file; return its size."""
    _, contents = read_contents(TEMPLATE)
    model: dict[str, Any] = dict(contents["cfg"]["model"])
    model |= BASE
    foreign = {"model": model}
    shapes = {name: tuple(one.shape) for name, one in contents["model"].items() if hasattr(one, "shape")}
    converter = next(one for one in converters if one.accepts(foreign))
    description = converter.config(foreign, shapes)
    one = Converted(description.build(), description, converter.layout(description, shapes))
    state = one.model.state_dict()
    student = one.student_names({name: x for name, x in state.items() if not name.startswith("teacher.")})
    teacher = one.teacher_names(one.model.teacher.module.state_dict())
    tensors = {f"{one.layout.prefixes[0]}{name}": x for name, x in student.items()}
    tensors |= {f"{one.layout.teacher_prefixes[0]}{name}": x for name, x in teacher.items()}
    torch.save({"cfg": {"model": model}, "model": tensors}, path)
    return path.stat().st_size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"read": [], "load": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base.pt"
        print(f"{write_base(path) / 1e6:.0f} MB")
        for _ in range(args.rounds):
            for how, measured in found.items():
                command = [sys.executable, "-c", ONE, str(path), how, str(TEMPLATE)]
                measured.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    seconds, memory = ({how: [one[i] for one in rows] for how, rows in found.items()} for i in (0, 1))
    ratios = sorted(load / read for load, read in zip(seconds["load"], seconds["read"], strict=True))
    for how in found:
        print(f"{how}: {statistics.median(seconds[how]):.2f} s, {statistics.median(memory[how]):.0f} MB")
    print(f"load / read: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
