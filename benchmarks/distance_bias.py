"""Time and peak memory of a training step on recordings: the distance bias in parts, and as a full tensor.

`parts` is the library: the kernel gets distances, slopes and padding. `full` gives it a tensor `r h k k`, built once
and copied once with padding. Both alternate in one process on the same model; compare the ratio of the medians. Peak
memory is measured in a separate process for each. Recordings last 10 s; with `--padded`, half of them 5 s. Example:
`python benchmarks/distance_bias.py --model audio/base --layers 3 --batch 2`.
"""

import argparse
import statistics
import subprocess
import sys

from formulations import Case, Step
from padding import batches_of, updates_of
from step import memory_of_this_process, timed
from torch import Tensor

from d2v.core.nn import DistanceBias, encoder
from d2v.core.nn.attention import AttentionBias, attention_mask

VARIANTS = ("parts", "full")


def full_mask(x: Tensor, bias: AttentionBias | None, padding: Tensor | None) -> AttentionBias | None:
    """Mask of an encoder, with the distance bias as a tensor."""
    return attention_mask(x, bias.table() if isinstance(bias, DistanceBias) else bias, padding)


def steps_of(case: Case, batch: int, *, padded: bool, seconds: float = 10.0) -> dict[str, Step]:
    """Return the step of one model in each variant."""
    chosen = {"one": batches_of(batch, long=seconds, short=seconds / 2)["padded" if padded else "full"]}
    step = updates_of(case, chosen)["one"]

    def full() -> None:
        encoder.attention_mask = full_mask
        try:
            step()
        finally:
            encoder.attention_mask = attention_mask

    return {"parts": step, "full": full}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="RECIPE", default="audio/base")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2, help="recordings in an update, even")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--padded", action="store_true", help="half of the recordings are short")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    case = Case.of(args.model, depth=args.layers)
    if args.memory_of:
        found = memory_of_this_process(steps_of(case, args.batch, padded=args.padded)[args.memory_of], "cpu")
        print(found["peak_gib"])
        return
    # Do this first, while this process is small: on Linux, a child inherits its parent's peak.
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of"]
    peaks = {name: float(subprocess.run([*command, name], capture_output=True, check=True).stdout) for name in VARIANTS}
    times = timed(steps_of(case, args.batch, padded=args.padded), args.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name in VARIANTS:
        ratios = f"{medians['full'] / medians[name]:.3f} in time, {peaks['full'] / peaks[name]:.3f} in memory"
        print(f"{name}: {medians[name]:.2f} s, peak {peaks[name]:.2f} GiB; full / {name}: {ratios}")


if __name__ == "__main__":
    main()
