"""The benchmark of a GPU runs on a CPU in a size for tests, so that it works on the day a GPU is there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import loaded

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from largest import fits, largest  # noqa: E402 - outside the package

gpu = loaded("benchmarks/gpu.py")  # the name alone would be the folder tests/gpu


@pytest.mark.long
def test_every_kind_of_part_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    environment = os.environ | {"TOY": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    command = [str(BENCHMARKS / "gpu.sh"), "audio/base", "largest/text", "table"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows[-7:]] == [
        *("library", "library, full bias", "plain"),
        *(f"{one}, largest batch" for one in ("library", "plain") * 2),
    ]
    assert {row[2] for row in rows[-4:]} == {"2"}


def test_the_parts_for_a_gpu_in_one_table(tmp_path: Path) -> None:
    arguments = gpu.parsed(["--device", "cpu", "--toy", "--rounds", "1", "--variants", "library;plain"])
    rows = [*gpu.rows("text/base", arguments), {"model": "text/base", "variant": "plain", "problem": "out of memory"}]
    rows.append({"model": "text/base", "variant": "plain", "largest": largest(lambda batch: batch <= 100)})
    (tmp_path / "text-base.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [str(BENCHMARKS / "gpu.sh"), "table", "vision"]
    environment = os.environ | {"OUT": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "vision/base" in done.stderr) == (2, True), "there is no part vision"
    table = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| text/base")]
    assert [row[1] for row in table] == ["library", "plain", "plain", "plain, largest batch"]
    assert ([row[2] for row in table], table[2][3]) == (["2", "2", "", "96"], "out of memory")


def test_the_largest_batch_that_fits() -> None:
    assert [largest(lambda batch, limit=limit: batch <= limit) for limit in (0, 1, 3, 8, 100)] == [0, 1, 3, 8, 96]
    assert [fits("text/base", "plain", batch, device="cpu", toy=True) for batch in (2, 3)] == [True, False]
