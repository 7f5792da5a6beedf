"""A worker of test_kernels: `python kernels_worker.py FOLDER RANK` decides the kernels of a model with another."""

import json
import os
import sys
from pathlib import Path

from torch import distributed as dist


def main(folder: Path, rank: int) -> None:
    from d2v.core.jobs import kernels
    from d2v.core.jobs.diagnosis import tiny_model

    os.environ["D2V_CACHE"] = str(folder / f"cache-{rank}")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    asked = []

    def measured(model: object, precision: str) -> dict[str, float]:
        asked.append(rank)
        return {"onednn-linear": 0.5 if rank == 0 else 2.0}

    kernels.measured = measured
    model = tiny_model()
    kernels.use_kernels(model, ("auto",), recorded=None, precision="fp32")
    (folder / f"found-{rank}.json").write_text(json.dumps({"taken": kernels.kernels_of(model), "asked": asked}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
