"""One of two workers of test_monitor: `python monitor_worker.py RANK STORE INPUTS` prints its report as JSON."""

import json
import sys

import torch
from torch import distributed as dist

from d2v.core.masks import Mask
from d2v.core.monitor import CollapseMonitor


def main(rank: int, store: str, inputs: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    part = torch.load(inputs, weights_only=True)[rank]
    monitor = CollapseMonitor()
    monitor.update(part["predictions"], part["targets"], Mask(hidden=part["hidden"], num_masks=2))
    print(json.dumps(monitor.report()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
