"""Time of one training step of a recipe's model, and its peak memory.

For vision/base also of the same step in plain formulas (tests/parity/plain.py), which is run in turn with the
library's in one process, so that both see the same noise; the ratio of the medians is what counts. Peak memory is
that of a process of its own for each. Example: `python benchmarks/step.py --model vision/base --batch 2 --steps 5
--json`.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from published import config_of
from torch import Tensor

from d2v.core import Batch
from d2v.core.description import Description
from d2v.core.files import ConfigError
from d2v.core.foreign import Converted
from d2v.core.model import Data2VecConfig, Local
from d2v.core.registry import UnknownNameError
from d2v.core.train import PublishedAdamW, parameter_groups
from d2v.vision import ImageAdapterConfig
from d2v.vision.convert import converters

PARITY = Path(__file__).parents[1] / "tests" / "parity"
sys.path.insert(0, str(PARITY))

Step = Callable[[], None]
SECONDS, TOKENS = 10, 512


def samples(config: Data2VecConfig, batch: int) -> Tensor:
    """Random input of the model's size."""
    ((modality, adapter),) = config.student.adapters.items()
    if isinstance(adapter, ImageAdapterConfig):
        return torch.randn(batch, adapter.channels, *adapter.image_size)
    if modality == "audio":
        return torch.randn(batch, SECONDS * 16_000)
    return torch.randint(4, 50_000, (batch, TOKENS))


def library_step(name: str, batch: int, device: str) -> Step:
    """One step of the library: masks, loss, gradients, clipping, optimiser, teacher."""
    config = config_of(name)
    model = config.build().to(device).train()
    optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.05, decay="all"), lr=1e-4)
    source, count = samples(config, batch).to(device), [0]

    def step() -> None:
        optimizer.zero_grad()  # before the forward pass: old gradients and activations need not live together
        out = model(Batch(source=source), update=count[0])
        (out.loss_sum / out.sample_size).backward()
        torch.nn.utils.clip_grad_norm_(model.student.parameters(), 4.0)
        optimizer.step()
        count[0] += 1
        model.update_teacher(count[0])

    return step


def plain_step(batch: int, device: str) -> Step:
    """The same step of vision/base in plain formulas, which reproduce the reference's numbers (tests/parity)."""
    from plain import average, forward, split

    config = config_of("vision/base")
    model = config.build().to(device)
    converter = next(one for one in converters if "2.0" in one.name)
    description = Description(model=config)
    one = Converted(model, description, converter.layout(description, {}))
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("teacher.")}
    tensors = one.student_names(state)
    averaged = one.teacher_names(model.teacher.module.state_dict())
    foreign = plain_config()
    student, teacher = split(foreign, tensors | {f"_ema.{name}": tensor for name, tensor in averaged.items()})
    learned = {name: p for name, p in student.items() if p.requires_grad}
    first, second = ({name: torch.zeros_like(p) for name, p in learned.items()} for _ in range(2))
    source, count = samples(config, batch).to(device), [0]

    def step() -> None:
        nonlocal teacher
        mask = model.mask(Batch(source=source), grid_of(source), update=count[0]).hidden
        loss = forward(foreign, student, teacher, {"source": source, "mask": mask})["loss.total"]
        grads = dict(zip(learned, torch.autograd.grad(loss, learned.values()), strict=True))
        count[0] += 1
        with torch.no_grad():
            norm = torch.sqrt(sum(grad.square().sum() for grad in grads.values()))
            for name, p in learned.items():
                grad = grads[name] * min(1.0, 4.0 / (norm.item() + 1e-6))
                adam(p, grad, first[name], second[name], count[0])
            teacher = average(foreign, teacher, student, count[0])

    return step


def adam(p: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: int) -> None:
    """The published rule, one parameter."""
    lr, b1, b2, eps, decay = 1e-4, 0.9, 0.95, 1e-8, 0.05
    m.copy_(b1 * m + (1 - b1) * grad)
    v.copy_(b2 * v + (1 - b2) * grad**2)
    p.copy_(p * (1 - lr * decay))
    p.copy_(p - lr * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (v.sqrt() + eps))


def plain_config() -> dict[str, Any]:
    """The original's configuration of vision/base."""
    config: dict[str, Any] = json.loads((PARITY / "data/v2/image_base/config.json").read_text())["model"]
    image = config["modalities"]["image"]
    config |= {"embed_dim": 768, "num_heads": 12, "depth": 10, "average_top_k_layers": 10, "clone_batch": 16}
    config |= {"ema_decay": 0.9998, "ema_end_decay": 0.99999, "ema_anneal_end_step": 100_000}
    image |= {"input_size": 224, "patch_size": 16, "embed_dim": 768, "num_alibi_heads": 12, "prenet_depth": 2}
    image["decoder"] |= {"decoder_dim": 768, "decoder_groups": 16, "decoder_kernel": 3, "decoder_layers": 6}
    return config


def grid_of(source: Tensor) -> Local:
    """Local features that only tell the grid: all that a masker asks for."""
    side = source.shape[-1] // 16
    return Local(x=source.new_zeros(len(source), side * side, 1), padding=None, grid=(side, side))


def timed(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, the variants in turn."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):  # the first one warms up
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_:
                times[name].append(time.perf_counter() - start)
    return times


def peak_memory(args: argparse.Namespace, variant: str) -> float:
    """GiB that a process of its own needs for two steps; on an accelerator its own count."""
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
        config_of(args.model)
    except (UnknownNameError, ConfigError) as error:
        parser.error(str(error))
    makers: dict[str, Callable[[], Step]] = {"library": lambda: library_step(args.model, args.batch, args.device)}
    if args.model == "vision/base":
        makers["plain"] = lambda: plain_step(args.batch, args.device)
    if args.memory_of:
        print(memory_of_this_process(makers[args.memory_of](), args.device))
        return
    # First, while this process is small: a child on Linux starts with its parent's peak.
    peaks = {name: peak_memory(args, name) for name in makers}
    times = timed({name: make() for name, make in makers.items()}, args.steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result: dict[str, Any] = {"model": args.model, "batch": args.batch, "steps": args.steps}
    result |= {"device": args.device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    result |= {"seconds": medians, "peak_gib": peaks}
    if "plain" in medians:
        result["plain_over_library"] = medians["plain"] / medians["library"]
    print(json.dumps(result) if args.json else "\n".join(f"{key}: {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
