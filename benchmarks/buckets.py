"""Compiled blocks on batches of several lengths: one form for each length, or one for all.

Batches of a speech model have the lengths of the buckets that their recordings are sorted into. Ways to compile:

- `static`: each length has code of its own, which is compiled when the length comes for the first time;
- `automatic`: the first length has code of its own, and the second one is compiled for any length (what
  `train.compile` does);
- `dynamic`: the first length is compiled for any length;
- `eager`: nothing is compiled.

Prints the compiled graphs, the seconds that the first pass over the lengths takes more than a later one, which is the
time of compilation, and the median time of a later pass.

Example: `python benchmarks/buckets.py --rounds 5`.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from formulations import Case
from torch._dynamo.utils import counters
from waits import narrow

from d2v.core import Batch, Data2Vec
from d2v.core.model import Data2VecConfig
from d2v.core.train import PublishedAdamW, parameter_groups
from d2v.core.train.preparing import compile_blocks

_RATE = 16_000
_ENOUGH = {"recompile_limit": 64, "accumulated_recompile_limit": 1024}  # of torch, which stops at 8 lengths
VARIANTS: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "static": {"automatic_dynamic_shapes": False, **_ENOUGH},
    "automatic": {},
    "dynamic": {"assume_static_by_default": False},
}


def model_of(dim: int, depth: int) -> Data2VecConfig:
    """Return the base speech model with blocks of another size and a narrow front end."""
    config = narrow(Case.of("audio/base", toy=True).config)
    encoder = config.student.encoder
    block = attrs.evolve(encoder.block, embed_dim=dim, num_heads=max(1, dim // 64))
    student = attrs.evolve(config.student, encoder=attrs.evolve(encoder, block=block, depth=depth, layer_drop=0.0))
    return attrs.evolve(config, student=student)


def batches_of(seconds: Sequence[float], budget: float) -> list[Batch]:
    """Return one batch of each length, with as many recordings as the budget of seconds allows."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(max(1, int(budget / length)), int(length * _RATE)) for length in seconds]
    return [Batch(source=torch.randn(size, generator=generator)) for size in sizes]


def passes(model: Data2Vec, batches: Sequence[Batch], rounds: int) -> list[float]:
    """Return the seconds of each pass over the batches, with one update a batch."""
    optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.05, decay="all"), lr=1e-4)
    times, count = [], 0
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        for batch in batches:
            optimizer.zero_grad()
            out = model(batch, update=count)
            (out.loss_sum / out.sample_size).backward()
            optimizer.step()
            count += 1
            model.update_teacher(count)
        times.append(time.perf_counter() - begin)
    return times


def measured(config: Data2VecConfig, batches: Sequence[Batch], settings: Mapping[str, Any] | None, rounds: int) -> str:
    """Measure one way to compile; return its line."""
    torch.manual_seed(0)
    torch.compiler.reset()
    counters.clear()
    model = config.build().train()
    with torch._dynamo.config.patch(dict(settings or {})):
        if settings is not None:
            compile_blocks(model)
        first, *later = passes(model, batches, rounds)
    graphs = counters["stats"]["unique_graphs"]
    median = statistics.median(later)
    compiling = f"{graphs:4} graphs, {first - median:6.1f} s to compile"
    return f"{compiling}, {median:6.2f} s a pass ({min(later):.2f}-{max(later):.2f})"


def main() -> None:
    """Measure every way and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=lambda text: [float(one) for one in text.split(",")], default=[2, 3, 4, 6, 8])
    parser.add_argument("--budget", type=float, default=16, help="seconds of audio in a batch")
    parser.add_argument("--dim", type=int, default=256, help="width of the blocks, a multiple of 64")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="passes after the first")
    parser.add_argument("--variants", type=lambda text: text.split(","), default=list(VARIANTS))
    args = parser.parse_args()
    config, batches = model_of(args.dim, args.depth), batches_of(args.seconds, args.budget)
    for name in args.variants:
        print(f"{name:10}{measured(config, batches, VARIANTS[name], args.rounds)}", flush=True)


if __name__ == "__main__":
    main()
