"""Subcommands of `d2v data` for images: check a folder, and export a built-in set as one."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

from d2v.core.data import Batches, DataError
from d2v.core.jobs.opening import check_files, say_contents
from d2v.core.modality import DataCommand
from d2v.vision import builtin
from d2v.vision.data import ImageDataConfig

__all__ = ["check_images", "export_images"]

_SETS = {
    "fashion-mnist": (builtin.fashion_mnist, builtin.FASHION_MNIST_CLASSES),
    "digits": (builtin.digits, builtin.DIGITS_CLASSES),
}


def _check_arguments(parser: ArgumentParser) -> None:
    """Add the folder and the number of reading processes."""
    parser.add_argument("path", metavar="FOLDER", help="images, or images below train/, val/ and test/; or a list")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="loader processes (default: %(default)s)")


def _check(arguments: Namespace) -> None:
    """Read every file once; print counts, broken files and files that are not used.

    Raises:
        DataError: if the folder cannot be used, or a file in it is broken.
    """
    config = ImageDataConfig(path=arguments.path, num_workers=arguments.workers)

    def describe(split: str, batches: Batches) -> str:
        counts: Counter[int] = Counter()
        total = 0
        for batch in batches:
            total += batch.size
            counts.update([] if batch.labels is None else batch.labels.tolist())
        names = config.classes(split)
        title = f"{split}: {total} images" + (f" of {len(names)} classes" if names else "")
        return "\n".join([title, *(f"  {name:<24} {counts[number]}" for number, name in enumerate(names))])

    check_files(config, describe, batch_size=64)


check_images = DataCommand(
    summary="count the images of a folder by class, and list the files that cannot be read",
    add_arguments=_check_arguments,
    run=_check,
)


def _export_arguments(parser: ArgumentParser) -> None:
    """Add the set, the folder and the number of images."""
    parser.add_argument("set", choices=_SETS, metavar="SET", help=" or ".join(_SETS))
    parser.add_argument("path", metavar="FOLDER", help="folder to create")
    parser.add_argument("--per-class", type=int, metavar="N", help="images of each class in each split (default: all)")


def _export(arguments: Namespace) -> None:
    """Write FOLDER/{train,val,test}/CLASS/NUMBER.png.

    Raises:
        DataError: if the folder already exists.
    """
    from PIL import Image

    folder = Path(arguments.path)
    if folder.exists():
        raise DataError(f"{folder} already exists; choose another folder")
    read, classes = _SETS[arguments.set]
    config = ImageDataConfig(path=arguments.set)
    say_contents(config)
    splits, total = config.splits(), 0
    for name, split in {"train": splits.train, "val": splits.val, "test": splits.test}.items():
        if split is None:
            continue
        written: Counter[int] = Counter()
        images, labels = read(split)
        for number, label in enumerate(labels.tolist()):
            if arguments.per_class is not None and written[label] >= arguments.per_class:
                continue
            written[label] += 1
            class_folder = folder / name / classes[label].replace("/", " or ")
            class_folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number, 0].numpy()).save(class_folder / f"{number}.png")
        total += written.total()
    print(f"{total} images in {folder}")


export_images = DataCommand(
    summary="write a built-in set as a folder of image files",
    add_arguments=_export_arguments,
    run=_export,
)
