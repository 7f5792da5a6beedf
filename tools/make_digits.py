"""Create the file of 8x8 digits that ships with d2v.vision from the wheel of scikit-learn 1.9.1.

    pip download --no-deps scikit-learn==1.9.1
    python tools/make_digits.py scikit_learn-1.9.1-*.whl

Only the table of `load_digits` is read; nothing is installed or run. There is no official split (all images are from
the original's test set), so the images of each class are split by a hash of the seed and the image, as in
make_fashion_mnist.py.
"""

import argparse
import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

MEMBER = "sklearn/datasets/data/digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"  # of the member: wheels differ by platform
SEED = "d2v digits 0"
TEST_SHARE = 0.2
FOLDER = Path(__file__).resolve().parents[1] / "d2v_vision/d2v/vision/shipped"


def main(argv: list[str] | None = None) -> None:
    """Read the wheel, split the images, write the file."""
    parser = argparse.ArgumentParser(description="Create the digits of d2v.vision.")
    parser.add_argument("wheel", type=Path, help="from `pip download --no-deps scikit-learn==1.9.1`")
    parser.add_argument("--out", type=Path, default=FOLDER / "digits.npz", help="default: the file in d2v.vision")
    args = parser.parse_args(argv)
    with zipfile.ZipFile(args.wheel) as wheel:
        table = wheel.read(MEMBER)
    found = hashlib.sha256(table).hexdigest()
    if found != SHA256:
        sys.exit(f"{args.wheel}: the sha256 of {MEMBER} is {found}, not {SHA256}: this is not scikit-learn 1.9.1")
    args.out.write_bytes(pack(split(*read(table))))
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")


def read(table: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 `n 8 8` from 0 to 16, and their classes, uint8 `n`."""
    rows = np.loadtxt(io.BytesIO(gzip.decompress(table)), delimiter=",", dtype=np.uint8)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]


def split(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return arrays `<split>_images` and `<split>_labels` in a shuffled order, a fifth of each class in `test`."""
    order = sorted(range(len(images)), key=lambda i: hashlib.sha256(f"{SEED} ".encode() + images[i].tobytes()).digest())
    test: set[int] = set()
    for label in range(10):
        of_class = [i for i in order if labels[i] == label]
        test.update(of_class[: round(TEST_SHARE * len(of_class))])
    arrays: dict[str, np.ndarray] = {}
    for name, wanted in (("train", False), ("test", True)):
        rows = [i for i in order if (i in test) == wanted]
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = images[rows], labels[rows]
    return arrays


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """Return the bytes of an npz file without the timestamp that numpy's writer adds."""
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
