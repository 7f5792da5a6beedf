"""Commands and the script of the page "Several GPUs", on two processes of a CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file

import d2v.core
from d2v.core.train import RunFolderError

PAGE = Path(__file__).parents[2] / "docs/several-gpus.md"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
COMMAND = (*TORCHRUN, "-m", "d2v")
SMALL = ("device=cpu", "threads=1", "train.log_every=1", "train.batch_size=8", "data.num_workers=0")
PRETRAIN = ("pretrain", "vision/small", "data.path=digits", "train.precision=fp32", *SMALL)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed"),
]


def run(command: tuple[str, ...], folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def typed(words: tuple[str, ...]) -> dict[str, Any]:
    """Arguments of a command as keys of the Python call."""
    return {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in words)}


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two updates on two processes, `ddp` and `fsdp`, and `alone` on one with the same samples."""
    path = tmp_path_factory.mktemp("several")
    for strategy in ("ddp", "fsdp"):
        run((*COMMAND, *PRETRAIN, f"out={strategy}", "train.max_steps=2", f"train.strategy={strategy}"), path)
    keys = {**typed(PRETRAIN[2:]), "train.batch_size": 16, "train.max_steps": 2, "out": str(path / "alone")}
    d2v.core.pretrain("vision/small", keys, progress=False)
    return path


def test_two_processes_train_as_one_with_twice_the_batch(folder: Path) -> None:
    ddp, fsdp, alone = (lines(folder / name) for name in ("ddp", "fsdp", "alone"))
    assert [line["step"] for line in ddp] == [1, 2]
    # Samples and masks are the same, the decoder's noise is not; the class-token loss is a sum over a process's rows.
    assert ddp[0]["regression"] == pytest.approx(alone[0]["regression"], rel=1e-2)
    assert [line["loss"] for line in fsdp] == pytest.approx([line["loss"] for line in ddp], rel=1e-5)


def test_probe_and_extract_give_what_one_process_gives(folder: Path) -> None:
    keys = ("model=ddp", "data.path=digits", "device=cpu", "threads=1")
    probed = run((*COMMAND, "probe", *keys, "probes=[knn,few]", "out=two.json"), folder)
    here = {"data.path": "digits", "device": "cpu", "threads": 1}
    results = d2v.core.probe({**here, "model": str(folder / "ddp"), "probes": ["knn", "few"]}, progress=False)
    assert results.table() in probed
    run((*COMMAND, "extract", *keys, "batch_size=100", "out=two.safetensors"), folder)
    alone = d2v.core.extract({**here, "model": str(folder / "ddp"), "out": str(folder / "one.safetensors")})
    one, two = (load_file(folder / f"{name}.safetensors") for name in ("one", "two"))
    assert one["features"].shape == alone.shape
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-5)
    assert (folder / "two.txt").read_text() == (folder / "one.txt").read_text()


def test_finetune_and_evaluate(folder: Path) -> None:
    use = ("data.path=digits", "device=cpu", "threads=1")
    keys = (*SMALL, "data.path=digits", "train.max_steps=4", "validation.every=2", "train.strategy=fsdp")
    run((*COMMAND, "finetune", "vision/small-finetune", "model=ddp", *keys, "out=classifier"), folder)
    printed = run((*COMMAND, "evaluate", "model=classifier", *use), folder)
    here = d2v.core.evaluate({**typed(use), "model": str(folder / "classifier")})
    assert here.text().splitlines()[0] in printed
    assert "val_accuracy" in lines(folder / "classifier")[-1]


def test_a_run_goes_on_with_one_process(folder: Path) -> None:
    more = {
        **typed(PRETRAIN[2:]),
        "train.max_steps": 3,
        "resume": True,
        "accept": ["schedule"],
        "out": str(folder / "ddp"),
    }
    with pytest.raises(RunFolderError, match=r"2 batches.*accumulate=2"):
        d2v.core.pretrain("vision/small", more, progress=False)
    d2v.core.pretrain("vision/small", {**more, "train.accumulate": 2}, progress=False)
    assert [line["step"] for line in lines(folder / "ddp")] == [1, 2, 3]
    changes = (folder / "ddp" / "changes.jsonl").read_text()
    assert "processes 2 -> 1" in changes


def test_the_script_of_the_page(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert found
    script = found[1]
    small = 'device="cpu", threads=1, batch_size=8, max_steps=2, log_every=1, data="digits", out="run"'
    for there, here in {
        'data="images", out="run", batch_size=128, precision="bf16"': small,
        "vision/base": "vision/small",
    }.items():
        assert there in script, f"the page's script has no {there!r}"
        script = script.replace(there, here)
    (tmp_path / "train.py").write_text(script)
    run((*TORCHRUN, "train.py"), tmp_path)
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2]


def test_other_commands_run_in_one_process(tmp_path: Path) -> None:
    done = subprocess.run(
        (*COMMAND, "predict", "model=run", "data.path=digits"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "predict" in done.stderr
    assert "torchrun" in done.stderr
