"""Updates a second of a small model: `fit` beside a loop written by hand, or this version beside another checkout.

    python benchmarks/loop.py --threads 1
    python benchmarks/loop.py --threads 2 --against ../d2v-before
    python benchmarks/loop.py --threads 2 train.compile=true

Both train by a recipe on built-in data, reading included, and take turns of some updates, so that both see the same
noise; compare the ratio of the medians. The loop by hand has what `fit` and it must have in common: loader, forward and
backward pass, clipping, optimiser and teacher. Another checkout trains in a process of its own. On one thread, seconds
are CPU seconds of the process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch

# What both checkouts must have; nothing of benchmarks/, which belongs to this one.
from d2v.core.jobs.running import train_by, training_batches
from d2v.core.precision import decided
from d2v.core.recipes import PretrainRecipe, parse_overrides, read_recipe

PACKAGES = ("d2v_core", "d2v_audio", "d2v_vision", "d2v_text")
Times = dict[str, list[float]]
"""Seconds of the turns, by name."""


class Turns:
    """Hook of `fit` that measures turns of so many updates, without what is done between them; the first warms up.

    Args:
        updates: updates of a turn.
        between: called after each turn with its seconds; None after the first.
    """

    def __init__(self, updates: int, between: Callable[[float | None], None]) -> None:
        self.updates, self.between = updates, between
        self.start: float | None = None

    def on_step_end(self, step: int) -> None:
        """End a turn, if this was its last update."""
        if step % self.updates == 0:
            self.between(None if self.start is None else clock() - self.start)
            self.start = clock()


def beside_hand(args: argparse.Namespace) -> Times:
    """Time `fit` and a loop by hand in one process; the loop by hand runs between the turns of `fit`."""
    times: Times = {"fit": [], "by hand": []}
    loop = by_hand(recipe_of(args))

    def between(seconds: float | None) -> None:
        start = clock()
        for _ in range(args.updates):
            next(loop)
        if seconds is not None:
            times["fit"].append(seconds)
            times["by hand"].append(clock() - start)

    train(args, between)
    return times


def by_hand(recipe: PretrainRecipe) -> Iterator[None]:
    """Train as a short loop would, an update at a time."""
    torch.manual_seed(recipe.seed)
    model = recipe.model_config().build()
    optimizer, rate = recipe.optim.build(model), recipe.optim.build_schedule(recipe.train.max_steps)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    half = decided(recipe.train.precision, torch.device("cpu")) == "bf16"
    for update, batch in enumerate(training_batches(recipe)):
        for group in optimizer.param_groups:
            group["lr"] = rate(update)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            output = model(batch, update=update)
        (output.loss_sum / output.sample_size).backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.optim.clip)
        optimizer.step()
        model.update_teacher(update + 1)
        yield


def beside_other(args: argparse.Namespace) -> Times:
    """Time this checkout and another one, each in a process of its own, in turn."""
    times: Times = {"this": [], "other": []}
    folders = {"this": Path(__file__).parents[1], "other": Path(args.against).absolute()}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(args, folder)) for name, folder in folders.items()}
        for process in workers.values():
            stack.callback(process.kill)
        for round_ in range(args.rounds + 1):
            for name, process in workers.items():
                seconds = turn(process)
                if round_:
                    times[name].append(seconds)
    return times


def worker(args: argparse.Namespace, folder: Path) -> subprocess.Popen[str]:
    """Start a process that trains with the packages of a checkout when told to."""
    missing = [name for name in PACKAGES if not (folder / name).is_dir()]
    if missing:
        sys.exit(f"loop.py: {folder} is no checkout: it has no {missing[0]}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(folder / name) for name in PACKAGES)}
    names = ("recipe", "data", "precision", "threads", "updates", "rounds")
    own = [part for name in names for part in (f"--{name}", str(getattr(args, name)))]
    command = [sys.executable, __file__, "--worker", *own, *args.keys]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def turn(process: "subprocess.Popen[str]") -> float:
    """Have a worker train one turn, and return its seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit("loop.py: a worker ended; its error is above")
    return float(line)


def work(args: argparse.Namespace) -> None:
    """Train a turn for each line of the standard input, and print its seconds."""
    sys.stdin.readline()

    def between(seconds: float | None) -> None:
        print(seconds or 0.0, flush=True)
        sys.stdin.readline()

    train(args, between)


def train(args: argparse.Namespace, between: Callable[[float | None], None]) -> None:
    """Train by the library's loop: a turn to warm up, and one for each round."""
    recipe = recipe_of(args)
    torch.manual_seed(recipe.seed)
    model = recipe.model_config().build()
    turns, steps = Turns(args.updates, between), args.updates * (args.rounds + 1)
    train_by(recipe, model, training_batches(recipe), recipe.optim.build(model), max_steps=steps, hooks=[turns])


def recipe_of(args: argparse.Namespace) -> PretrainRecipe:
    """Return the recipe, with the data and the precision that were asked for; nothing is written to `out`."""
    given = {"data.path": args.data, "out": "run", "train.precision": args.precision}
    return read_recipe(args.recipe, given | parse_overrides(args.keys), PretrainRecipe)


def clock() -> float:
    """Seconds of this process, or of the wall where several threads work."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def parsed() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="settings of the recipe")
    parser.add_argument("--against", metavar="FOLDER", help="another checkout (default: a loop written by hand)")
    parser.add_argument("--recipe", default="vision/small")
    parser.add_argument("--data", default="fashion-mnist", help="data.path (default: fashion-mnist)")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--updates", type=int, default=50, help="updates of a turn (default: 50)")
    parser.add_argument("--rounds", type=int, default=11, help="turns of each (default: 11)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parsed()
    torch.set_num_threads(args.threads)
    if args.worker:
        work(args)
        return
    times = beside_other(args) if args.against else beside_hand(args)
    speeds = {name: args.updates / statistics.median(seconds) for name, seconds in times.items()}
    (first, one), (second, other) = speeds.items()
    row = {**speeds, "ratio": one / other, "threads": args.threads, "clock": "cpu" if args.threads == 1 else "wall"}
    if args.json:
        print(json.dumps({"recipe": args.recipe, "precision": args.precision, **row}))
    else:
        print(
            f"{args.recipe}, {args.precision}, {args.threads} thread(s): {first} {one:.1f}, {second} {other:.1f} "
            f"updates a {row['clock']} second; {one / other:.3f} times as many"
        )


if __name__ == "__main__":
    main()
