"""Images a second of a recipe's data in training: read, decoded, augmented and batched, beside plain torchvision.

python benchmarks/loading.py --recipe vision/photos --path photos --workers 0,2

Plain torchvision is its `ImageFolder` with the same transforms in a `DataLoader`. Both take turns; the ratio is that of
the medians. With no worker, the time is the CPU time of this process, otherwise wall time.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.vision import ImageDataConfig


def ours(data: ImageDataConfig, batch_size: int, workers: int) -> Iterator[Any]:
    """Yield the sources of batches `b c h w`, without end."""
    data = attrs.evolve(data, num_workers=workers)
    loader = data.build(data.splits().train, batch_size=batch_size, training=True)
    return (batch.source for batch in loader)


def plain(data: ImageDataConfig, batch_size: int, workers: int) -> Iterator[Any]:
    """The same by torchvision alone."""
    prepared = data.preparation()
    steps = [
        v2.RandomResizedCrop(data.size, data.crop_area, data.crop_ratio, interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(data.flip),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(prepared["mean"], prepared["std"]),
    ]
    folder = ImageFolder(str(Path(data.path) / data.splits().train), v2.Compose(steps))
    loader = DataLoader(folder, batch_size, shuffle=True, num_workers=workers, drop_last=True)
    while True:
        yield from (images for images, _ in loader)


def seconds_per_batch(batches: Iterator[Any], workers: int) -> float:
    """Return the time of a batch, after those that were read ahead."""
    clock = time.perf_counter if workers else time.process_time
    for _ in islice(batches, 2 * workers + 1):
        pass
    count, start = 4 * max(workers, 1), clock()
    for _ in islice(batches, count):
        pass
    return (clock() - start) / count


def measure(data: ImageDataConfig, batch_size: int, workers: int, rounds: int) -> tuple[float, float]:
    """Images a second, ours and plain; each turn starts workers of its own."""
    found: dict[Any, list[float]] = {ours: [], plain: []}
    for _ in range(rounds):
        for variant, times in found.items():
            times.append(seconds_per_batch(variant(data, batch_size, workers), workers))
    first, second = (batch_size / statistics.median(times) for times in found.values())
    return first, second


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vision/photos")
    parser.add_argument("--path", required=True)
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[0, 2])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    recipe = read_recipe(args.recipe, {"data.path": args.path, "out": "unused"}, PretrainRecipe)
    ((_, data),) = recipe.sources.items()
    assert isinstance(data, ImageDataConfig)
    torch.set_num_threads(1)
    print(f"{args.recipe}, batches of {recipe.train.batch_size}, {os.cpu_count()} CPU cores, images a second")
    for workers in args.workers:
        mine, theirs = measure(data, recipe.train.batch_size, workers, args.rounds)
        print(f"{workers:3} workers: {mine:6.0f}, torchvision {theirs:6.0f}, ratio {mine / theirs:.2f}", flush=True)


if __name__ == "__main__":
    main()
