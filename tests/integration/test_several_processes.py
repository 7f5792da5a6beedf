"""The script of the page "Several GPUs", on two processes of a CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

import d2v.core

PAGE = Path(__file__).parents[2] / "docs/several-gpus.md"
# The same script where there is no GPU, small.
HERE = {
    'torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))': "torch.set_num_threads(1)",
    '"nccl"': '"gloo"',
    '"images"': '"digits"',
    '"cuda"': '"cpu"',
    "batch_size=128,": "batch_size=8, max_steps=2, log_every=1, num_workers=0,",
    '"bf16"': '"fp32"',
    "vision/base": "vision/small",
}


@pytest.mark.long
@pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert found
    script = found[1]
    for there, here in HERE.items():
        assert there in script, f"the page's script has no {there!r}"
        script = script.replace(there, here)
    (tmp_path / "train.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr

    d2v.core.pretrain(
        "vision/small",
        data="digits",
        out=str(tmp_path / "alone"),
        device="cpu",
        batch_size=16,
        precision="fp32",
        max_steps=2,
        log_every=1,
        progress=False,
    )
    two, alone = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("run", "alone")
    )
    assert [line["step"] for line in two] == [1, 2]
    # Samples and masks are the same, the decoder's noise is not; the class-token loss is a sum over a process's rows.
    assert two[0]["regression"] == pytest.approx(alone[0]["regression"], rel=1e-2)
