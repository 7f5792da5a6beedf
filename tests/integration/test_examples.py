"""What README and examples show runs as it stands; long runs are marked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
ACCURACY = re.compile(r"([\d.]+) % before, ([\d.]+) % after")


def pretrain(*options: str) -> tuple[float, float]:
    command = [sys.executable, "-W", "error", "examples/pretrain_images.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = ACCURACY.search(done.stdout)
    assert found, done.stdout
    return float(found[1]), float(found[2])


def test_readme_has_code() -> None:
    assert BLOCKS


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_code_in_the_readme_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_the_example_is_short_and_learns_a_little() -> None:
    assert len((ROOT / "examples/pretrain_images.py").read_text().splitlines()) <= 100
    before, after = pretrain("--steps", "40")
    assert 60 < before < 75
    assert after > 20  # ten classes: chance is 10


@pytest.mark.long
def test_the_example_learns() -> None:
    before, after = pretrain()
    assert after >= before + 10
