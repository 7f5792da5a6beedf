"""Compiled blocks on batches of several lengths: one form for each length, or one for all.

Batches of a speech model have the lengths of the buckets that their recordings are sorted into. Ways to compile:

- `static`: each length has code of its own, which is compiled when the length comes for the first time;
- `automatic`: the first length has code of its own, and the second one is compiled for any length (what
  `train.compile` does);
- `dynamic`: the first length is compiled for any length;
- `eager`: nothing is compiled.

Prints the compiled graphs, the seconds that the first pass over the lengths takes more than a later one, which is the
time of compilation, and the median time of a later pass. Later passes of all ways alternate.

Example: `python benchmarks/buckets.py --rounds 5`.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from functools import partialmethod
from typing import Any
from unittest import mock

os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # read when torch is imported

import attrs
import torch
from formulations import Case
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.compile_fx import compile_fx
from waits import narrow

from d2v.core import Batch
from d2v.core.model import Data2VecConfig
from d2v.core.train import PublishedAdamW, parameter_groups
from d2v.core.train.preparing import compile_blocks

_RATE = 16_000
_ENOUGH = {"recompile_limit": 64, "accumulated_recompile_limit": 1024}  # of torch, which stops at 8 lengths
VARIANTS: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "static": {"automatic_dynamic_shapes": False},
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


class Way:
    """One way to compile, with a model of its own.

    Args:
        name: one of `VARIANTS`.
        config: configuration of the model.
        batches: one batch of each length.
    """

    def __init__(self, name: str, config: Data2VecConfig, batches: Sequence[Batch]) -> None:
        self.settings = VARIANTS[name]
        self.batches = batches
        self.times: list[float] = []
        self.graphs = 0
        torch.manual_seed(0)
        self.model = config.build().train()
        self.optimizer = PublishedAdamW(parameter_groups(self.model, weight_decay=0.05, decay="all"), lr=1e-4)
        if self.settings is not None:
            # A compiler of its own: otherwise all ways would share what one of them has compiled.
            own = partialmethod(nn.Module.compile, backend=lambda graph, inputs: compile_fx(graph, inputs))
            with mock.patch.object(nn.Module, "compile", own):
                compile_blocks(self.model)

    def run(self) -> None:
        """Make a pass over the batches, with one update a batch."""
        before, begin = counters["stats"]["unique_graphs"], time.perf_counter()
        with torch._dynamo.config.patch({**_ENOUGH, **(self.settings or {})}):
            for batch in self.batches:
                self.optimizer.zero_grad()
                out = self.model(batch, update=0)
                (out.loss_sum / out.sample_size).backward()
                self.optimizer.step()
                self.model.update_teacher(1)
        self.times.append(time.perf_counter() - begin)
        self.graphs += counters["stats"]["unique_graphs"] - before

    def line(self) -> str:
        """Return the results as text."""
        first, *later = self.times
        median = statistics.median(later)
        compiling = f"{self.graphs:4} graphs, {max(0.0, first - median):6.1f} s to compile"
        return f"{compiling}, {median:6.2f} s a pass ({min(later):.2f}-{max(later):.2f})"


def main() -> None:
    """Measure every way and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=lambda text: [float(one) for one in text.split(",")], default=[2, 3, 4, 6])
    parser.add_argument("--budget", type=float, default=12, help="seconds of audio in a batch")
    parser.add_argument("--dim", type=int, default=256, help="width of the blocks, a multiple of 64")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5, help="passes after the first")
    parser.add_argument("--variants", type=lambda text: text.split(","), default=list(VARIANTS))
    args = parser.parse_args()
    config, batches = model_of(args.dim, args.depth), batches_of(args.seconds, args.budget)
    ways = {name: Way(name, config, batches) for name in args.variants}
    for _ in range(args.rounds + 1):
        for way in ways.values():
            way.run()
    for name, way in ways.items():
        print(f"{name:10}{way.line()}", flush=True)


if __name__ == "__main__":
    main()
