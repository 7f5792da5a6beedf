"""Throughput of a recipe's data in training, in images a second: read, decoded, augmented and batched.

python benchmarks/loading.py --recipe vision/photos --path photos --workers 0,4,8
"""

import argparse
import os
import time
from itertools import islice

import attrs

from d2v.core.recipes import PretrainRecipe, read_recipe


def rate(recipe: PretrainRecipe, workers: int, seconds: float) -> float:
    """Images a second with a number of loader processes."""
    ((_, data),) = recipe.sources.items()
    data = attrs.evolve(data, num_workers=workers)
    batches = iter(
        data.build(data.splits().train, batch_size=recipe.train.batch_size, seed=0, rank=0, world_size=1, training=True)
    )
    for _ in islice(batches, 2 * workers + 1):  # batches prefetched before the timing
        pass
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images += next(batches).size
    return images / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vision/photos")
    parser.add_argument("--path", required=True)
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[0, 4, 8])
    parser.add_argument("--seconds", type=float, default=8.0)
    args = parser.parse_args()
    recipe = read_recipe(args.recipe, {"data.path": args.path, "out": "unused"}, PretrainRecipe)
    print(f"{args.recipe}, batches of {recipe.train.batch_size}, {os.cpu_count()} CPU cores")
    for workers in args.workers:
        print(f"{workers:3} workers: {rate(recipe, workers, args.seconds):6.0f} images a second", flush=True)


if __name__ == "__main__":
    main()
