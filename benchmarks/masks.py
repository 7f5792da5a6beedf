"""Time of 1,000 masks at the published settings: `python benchmarks/masks.py [--device cuda] [--json]`."""

import argparse
import json
import statistics
import time

import torch

from d2v.core.masks import BlockMasker, ChannelMasker, Draw, InverseBlockMasker, Masker, RandomMasker, SpanMasker

ROWS, CLONES, REPEATS = 1000, 8, 7
CTC = ChannelMasker(
    positions=SpanMasker(mask_prob=0.5, mask_length=10),
    channels=SpanMasker(mask_prob=0.25, mask_length=64, min_masks=0),
    embed_dim=768,
)
SETTINGS: dict[str, tuple[Masker, tuple[int, ...]]] = {
    "image base": (InverseBlockMasker(mask_prob=0.8, mask_length=3, mask_prob_adjust=0.07), (14, 14)),
    "image large": (InverseBlockMasker(mask_prob=0.75, mask_length=3, mask_prob_adjust=0.1), (14, 14)),
    "image huge14": (InverseBlockMasker(mask_prob=0.75, mask_length=3, mask_prob_adjust=0.1), (16, 16)),
    "audio base": (InverseBlockMasker(mask_prob=0.5, mask_length=5, mask_prob_adjust=0.05, inverse=False), (500,)),
    "audio large": (InverseBlockMasker(mask_prob=0.55, mask_length=5, mask_prob_adjust=0.1, inverse=False), (500,)),
    "audio spans": (SpanMasker(mask_prob=0.5, mask_length=5), (500,)),
    "audio ctc": (CTC, (500,)),
    "text base": (RandomMasker(mask_prob=0.48), (512,)),
    "1.0 audio": (SpanMasker(mask_prob=0.65, mask_length=10), (999,)),
    "1.0 text": (SpanMasker(mask_prob=0.35, mask_length=4, min_masks=0, equal_counts=False, reach_end=True), (512,)),
    "1.0 image": (BlockMasker(num_masked=120, min_per_block=16, max_per_block=196), (14, 14)),
}


def milliseconds(masker: Masker, grid: tuple[int, ...], device: torch.device) -> float:
    """Median time of 1,000 masks, 8 for each sample, over a few calls."""
    ids = torch.arange(ROWS // CLONES, device=device)
    times = []
    for update in range(REPEATS + 1):
        start = time.perf_counter()
        masker(len(ids), grid, num_masks=CLONES, draw=Draw(seed=0, update=update, ids=ids))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1000 * ROWS / (len(ids) * CLONES)


def main() -> None:
    """Time every setting and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    for name, (masker, grid) in SETTINGS.items():
        took = round(milliseconds(masker, grid, device), 2)
        if arguments.json:
            line = {"benchmark": "masks", "setting": name, "grid": grid, "ms_per_1000_masks": took}
            print(json.dumps(line | {"device": str(device), "threads": 1, "torch": torch.__version__}))
        else:
            print(f"{name:14} {took:8.2f} ms / 1000 masks on {grid}")


if __name__ == "__main__":
    main()
