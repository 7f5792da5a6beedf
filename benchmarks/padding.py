"""What padding costs in a training step on recordings.

Three steps of the same recordings alternate in one process, half of them of 10 s and half of 5 s:

- `padded`: one batch, in which the short recordings are padded to 10 s;
- `sorted`: two batches of equal lengths, as length buckets give them, with their gradients summed in one update;
- `full`: one batch in which all recordings last 10 s, for the cost of the padding mask itself.

Compare the ratios of the medians. Example: `python benchmarks/padding.py --model audio/base --batch 2 --rounds 3`.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial

import torch
from formulations import Case, Step
from step import timed

from d2v.core import Batch
from d2v.core.train import PublishedAdamW, parameter_groups

_RATE = 16_000
_LONG, _SHORT = 10.0, 5.0  # seconds


def batches_of(batch: int, *, long: float, short: float) -> dict[str, list[Batch]]:
    """Return the batches of an update of each variant, with recordings of two durations in seconds."""
    length, kept, half = int(long * _RATE), int(short * _RATE), batch // 2
    source = torch.randn(batch, length)
    hidden = torch.zeros(batch, length, dtype=torch.bool)
    hidden[half:, kept:] = True
    return {
        "padded": [Batch(source=source.masked_fill(hidden, 0.0), padding=hidden)],
        "sorted": [Batch(source=source[:half]), Batch(source=source[half:, :kept])],
        "full": [Batch(source=source)],
    }


def updates_of(case: Case, variants: dict[str, list[Batch]]) -> dict[str, Step]:
    """Return an update of one model on the batches of each variant."""
    model = case.config.build().train()
    optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.05, decay="all"), lr=1e-4)

    def update(batches: Sequence[Batch]) -> None:
        optimizer.zero_grad()
        for batch in batches:
            out = model(batch, update=0)
            (out.loss_sum / out.sample_size / len(batches)).backward()
        optimizer.step()
        model.update_teacher(1)

    return {name: partial(update, batches) for name, batches in variants.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="RECIPE", default="audio/base")
    parser.add_argument("--batch", type=int, default=2, help="recordings in an update, even")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.batch < 2 or args.batch % 2:
        parser.error(f"--batch {args.batch}: half of the recordings are short, so give an even number")
    variants = batches_of(args.batch, long=_LONG, short=_SHORT)
    times = timed(updates_of(Case.of(args.model), variants), args.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.2f} s, {median / medians['padded']:.2f} of padded")


if __name__ == "__main__":
    main()
