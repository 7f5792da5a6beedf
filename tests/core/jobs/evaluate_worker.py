"""A worker of test_tasks: `python evaluate_worker.py TESTS FOLDER RANK` evaluates the toys' models with another."""

import json
import sys
from pathlib import Path

import torch
from torch import distributed as dist


def main(folder: Path, rank: int) -> None:
    from labelled import TASKS, installed

    from d2v.core.jobs import evaluate

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    with installed():
        for kind in TASKS:
            given = {"model": str(folder / kind), "data.path": kind, "device": "cpu", "batch_size": 2}
            result = evaluate(given | {"split": ["val", "test"], "out": f"{folder}/{kind}.json"}, progress=False)
            found[kind] = {"metrics": result.metrics(), "tables": result.tables()}
        given = {"model": str(folder / "symbols"), "data.path": "symbols", "device": "cpu", "batch_size": 2}
        result = evaluate(given | {"split": ["val"], "task.longest": [0, 1, 100]}, progress=False)
        found["sweep"] = {"tried": [one.to_plain() for one in result.tried]}
    (folder / f"shared-{rank}.json").write_text(json.dumps(found))
    dist.barrier()  # neither closes its connections while the other one uses them
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    main(Path(sys.argv[2]), int(sys.argv[3]))
