"""Speed and peak memory of making token files, beside `tokenizers` alone: `python benchmarks/tokens.py`.

The text is the built-in WordNet glosses, repeated. Each row is a process of its own. `tokenizers` alone reads the same
lines, encodes a megabyte at a time and throws the ids away; with several workers it uses as many threads. Times include
the start of Python, of d2v also the import of torch. Memory is of all processes together, read from /proc.
"""

import argparse
import gzip
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODE = {
    "d2v data tokens": """
import sys
from pathlib import Path
from d2v.text.corpus.encoding import encode
from d2v.text.corpus.texts import TextFiles
from d2v.text.tokenizing import read_tokenizer
folder = Path(sys.argv[1])
if __name__ == "__main__":
    source = TextFiles({"train": [str(folder / "text.txt")]})
    encode(source, folder / "out", read_tokenizer(folder), workers=int(sys.argv[2]))
""",
    "tokenizers": """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
encoder = Tokenizer(models.BPE.from_file(f"{sys.argv[1]}/vocab.json", f"{sys.argv[1]}/merges.txt"))
encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
with open(f"{sys.argv[1]}/text.txt") as file:
    while lines := file.readlines(1 << 20):
        encoder.encode_batch_fast([line.strip() for line in lines], add_special_tokens=False)
""",
}


def measured(name: str, folder: Path, workers: int) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MB of all processes of one way."""
    threads = {"RAYON_NUM_THREADS": str(workers), "TOKENIZERS_PARALLELISM": "true" if workers > 1 else "false"}
    shutil.rmtree(folder / "out", ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-c", CODE[name], str(folder), str(workers)]
    process = subprocess.Popen(command, env=os.environ | (threads if name == "tokenizers" else {}))
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{name} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, sum(after[:2]) - sum(before[:2]), peak / 1024


def memory(process: int) -> int:
    """Memory in kB of a process and its children, pages that they share counted once."""
    try:
        total = sum(
            int(line.split()[1])
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            if line.startswith("Pss:")
        )
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return 0
    return total + sum(memory(int(child)) for child in children)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Time making token files.")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[16, 64], help="sizes of the text")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    parser.add_argument("--vocabulary", type=int, default=8000, help="size of the tokenizer, trained on the text")
    args = parser.parse_args()
    from d2v.text.corpus.builtin import builtin_text
    from d2v.text.tokenizing import train_tokenizer, write_tokenizer

    text = gzip.decompress(builtin_text("wordnet").read_bytes())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokenizer(train_tokenizer(text.decode().split("\n"), args.vocabulary), folder)
        print("| MB of text | workers | | MB/s | MB per CPU second | peak MB |")
        print("|---|---|---|---|---|---|")
        for size in args.megabytes:
            with (folder / "text.txt").open("wb") as file:
                written = sum(file.write(text) for _ in range(-(-(size << 20) // len(text)))) / 1e6
            for workers in args.workers:
                for way in CODE:
                    seconds, cpu, peak = measured(way, folder, workers)
                    rates = f"{written / seconds:.1f} | {written / cpu:.1f}"
                    print(f"| {written:.0f} | {workers} | {way} | {rates} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
