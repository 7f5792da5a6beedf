"""Write a folder of spoken prompts from Debian packages, to pretrain, fine-tune and measure speech models on.

The prompts are those of the Asterisk telephone system (8 kHz, CC BY-SA 3.0): one voice for each language, with
transcripts in English. Get the packages with
`apt-get download asterisk-core-sounds-en asterisk-core-sounds-{en,es,fr,it}-wav`, then run
`python benchmarks/prompts.py prompts *.deb`. The folder contains

- `unlabelled/`: prompts of all languages in random order, joined to recordings of 30 s, without those of `val` and
  `test`;
- `labelled.csv` and `labelled/`: English prompts of 0.4 to 10 s with path, text and split. Texts are in lower case,
  without punctuation; prompts with digits or brackets are left out;
- `sentences.txt`: the English texts that are not those of `val` or `test`, for a language model.
"""

import argparse
import csv
import gzip
import io
import random
import re
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path

RATE = 8000
JOINED = 30 * RATE
SPLITS = {"test": 100, "val": 70}
SEED = 0


def members(package: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a Debian package: an `ar` archive that contains a tar archive."""
    content = package.read_bytes()
    if not content.startswith(b"!<arch>\n"):
        raise SystemExit(f"{package} is not a Debian package")
    start = 8
    while start < len(content):
        name, size = content[start : start + 16].decode().strip(" /"), int(content[start + 48 : start + 58])
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(content[start + 60 : start + 60 + size])) as archive:
                for one in archive:
                    if one.isfile() and (file := archive.extractfile(one)) is not None:
                        yield one.name, file.read()
        start += 60 + size + size % 2


def samples(content: bytes) -> bytes:
    """The 16-bit samples of a wave file."""
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return file.readframes(file.getnframes())


def spoken(text: str) -> str | None:
    """A transcript as words in lower case; None if it is not spelled as it is spoken."""
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower()
    if re.search(r"[\d\[\](]", text):
        return None
    return " ".join(re.sub(r"[^a-z' ]+", " ", text).split()) or None


def write(path: Path, content: bytes) -> None:
    """Write samples as a wave file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(content)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("packages", type=Path, nargs="+")
    arguments = parser.parse_args()
    recordings: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    for package in arguments.packages:
        for name, content in members(package):
            if name.endswith(".wav") and "/silence/" not in name:
                recordings[name.partition("/sounds/")[2].removesuffix(".wav")] = samples(content)
            elif name.endswith("core-sounds-en.txt.gz"):
                lines = gzip.decompress(content).decode(errors="replace").splitlines()
                pairs = (line.split(":", 1) for line in lines if ":" in line and not line.startswith(";"))
                texts |= {f"en_US_f_Allison/{name.strip()}": text for name, text in pairs}
    draw = random.Random(SEED)
    known = {name: text for name, one in sorted(texts.items()) if (text := spoken(one)) and name in recordings}
    known = {name: text for name, text in known.items() if 0.4 <= len(recordings[name]) / 2 / RATE <= 10}
    names = list(known)
    draw.shuffle(names)
    splits = dict.fromkeys(names, "train")
    for split, count in SPLITS.items():
        for name in [name for name in names if splits[name] == "train"][:count]:
            splits[name] = split
    arguments.out.mkdir(parents=True)
    with (arguments.out / "labelled.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "text", "split"])
        for name in sorted(known):
            path = f"labelled/{name.partition('/')[2].replace('/', '-')}.wav"
            write(arguments.out / path, recordings[name])
            table.writerow([path, known[name], splits[name]])
    heldout = {known[name] for name, split in splits.items() if split != "train"}
    sentences = {text for one in texts.values() if (text := spoken(one))} - heldout
    (arguments.out / "sentences.txt").write_text("".join(f"{text}\n" for text in sorted(sentences)))
    rest = [name for name in sorted(recordings) if splits.get(name, "train") == "train"]
    draw.shuffle(rest)
    joined = b"".join(recordings[name] for name in rest)
    for number, start in enumerate(range(0, len(joined), 2 * JOINED)):
        write(arguments.out / f"unlabelled/{number:04}.wav", joined[start : start + 2 * JOINED])
    counts = {split: list(splits.values()).count(split) for split in ("train", *SPLITS)}
    print(f"{len(joined) / 2 / RATE / 60:.1f} minutes unlabelled, {counts} labelled")


if __name__ == "__main__":
    main()
