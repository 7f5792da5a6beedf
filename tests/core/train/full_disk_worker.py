"""A child of test_full_disk: `python full_disk_worker.py DISK WHOLE` trains on a small disk that fills up."""

import sys
from contextlib import suppress
from pathlib import Path

import torch
from training import At, same, train

from d2v.core.train import RunFolderError

_PAGE = 4096


def fill(disk: Path, left: int, metrics: Path) -> None:
    """Leave so many bytes free, in whole pages, and ten in the page of the metrics."""
    with metrics.open("a") as file:
        file.write(" " * (_PAGE - 10 - metrics.stat().st_size % _PAGE))
    with suppress(OSError), (disk / "ballast").open("ab", buffering=0) as file:
        while file.write(bytes(_PAGE)) == _PAGE:
            pass
    size = (disk / "ballast").stat().st_size
    with (disk / "ballast").open("r+b") as file:
        file.truncate(max(0, size - left))


def main(disk: Path, whole: Path) -> None:
    torch.set_num_threads(1)
    checkpoint = sum(file.stat().st_size for file in (whole / "checkpoints/step-8").iterdir())
    for name, update, left, options in (
        ("checkpoint", 5, checkpoint // 2, {}),
        ("metrics", 6, 0, {"checkpoint_every": 5}),
    ):
        run = disk / name
        try:
            train(
                run, hooks=[At(update, lambda left=left, run=run: fill(disk, left, run / "metrics.jsonl"))], **options
            )
        except RunFolderError as error:
            print(f"{name}: {error}", flush=True)
        (disk / "ballast").unlink()
        train(run)
        same(run, whole)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
