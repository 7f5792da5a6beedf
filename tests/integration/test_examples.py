"""What README and examples show runs as it stands; long runs are marked."""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from d2v.core import Data2Vec, fit
from d2v.core.data import Loader
from d2v.core.recipes import PretrainRecipe, read_recipe

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
ACCURACY = re.compile(r"([\d.]+) % before, ([\d.]+) % after")


def output_of(name: str, *options: str) -> str:
    command = [sys.executable, "-W", "error", f"examples/{name}.py", *options]
    # One thread, as in the tests: threads that wait for each other on a busy machine cost a multiple.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pretrain(*options: str) -> tuple[float, float]:
    output = output_of("pretrain_images", *options)
    found = ACCURACY.search(output)
    assert found, output
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


@pytest.fixture
def bare_loop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bare_loop", ROOT / "examples/bare_loop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Losses:
    """A hook that keeps what is logged."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_log(self, step: int, metrics: dict[str, float]) -> None:
        self.seen.append(metrics["loss"])


def test_the_bare_loop_runs() -> None:
    output = output_of("bare_loop", "--steps", "12")
    assert re.search(r"step 10/12  loss [\d.]+\nstep 12/12  loss [\d.]+\n$", output), output


def test_the_bare_loop_does_as_fit(bare_loop: ModuleType) -> None:
    assert len(inspect.getsource(bare_loop.train).splitlines()) <= 40
    steps, seed, hook = 6, 3, Losses()
    settings = {"data.path": "digits", "out": "unused", "train.max_steps": steps, "seed": seed}
    recipe = read_recipe("vision/small", settings, PretrainRecipe)
    schedule = recipe.optim.build_schedule(steps)
    shared: dict[str, Any] = {"accumulate": 2, "clip": 0.5, "seed": seed}  # a norm that is reached

    def parts() -> tuple[Data2Vec, Loader[Any], torch.optim.Optimizer]:
        torch.manual_seed(seed)
        model = recipe.model_config().build()
        data = recipe.data.build("train", batch_size=8, seed=seed, training=True)
        return model, data, recipe.optim.build(model)

    bare, data, optimizer = parts()
    losses = list(bare_loop.train(bare, data, optimizer, schedule, steps=steps, **shared))
    fitted, data, optimizer = parts()
    fit(fitted, data, optimizer=optimizer, schedule=schedule, max_steps=steps, log_every=1, hooks=[hook], **shared)
    assert losses == hook.seen
    for name, tensor in fitted.state_dict().items():
        assert torch.equal(tensor, bare.state_dict()[name]), name
