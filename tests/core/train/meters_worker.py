"""A worker of test_meters: `python meters_worker.py RANK WORKERS FOLDER` reports what its rank alone has seen."""

import json
import sys
from pathlib import Path

import torch
from torch import distributed as dist

from d2v.core.train.meters import Meters

SEEN = [
    [("image", {"loss": (2.0, 2), "cls": (8.0, 4)}), ("image", {"loss": (4.0, 1)})],
    [("text", {"loss": (10.0, 2), "größe": (1.0, 1)}), (None, {"loss": (4.0, 5)})],
]


def main(rank: int, workers: int, folder: str) -> None:
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers)
    reports = []
    for interval in range(3):
        meters = Meters()
        ranks = [rank] if workers > 1 else range(len(SEEN))
        for modality, metrics in [one for which in ranks for one in SEEN[which]]:
            if interval == 2 and modality == "text":
                continue  # a rank may be left with fewer names than before
            meters.add({name: (torch.tensor(total), n) for name, (total, n) in metrics.items()}, modality=modality)
        reports.append(Meters().report() if interval == 1 else meters.report())
    Path(folder, f"{rank}-{workers}").write_text(json.dumps(reports))
    if workers > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
