"""The code in README and examples runs unchanged; long runs are marked."""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from d2v.core import Data2Vec, fit
from d2v.core.data import Loader
from d2v.core.precision import Precision
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


def test_the_example_is_short() -> None:
    assert len((ROOT / "examples/pretrain_images.py").read_text().splitlines()) <= 100


@pytest.mark.long
def test_the_example_learns_a_little_in_40_updates() -> None:
    before, after = pretrain("--steps", "40")
    assert 60 < before < 75
    assert after > 20  # ten classes: chance is 10


@pytest.mark.long
def test_the_example_learns() -> None:
    before, after = pretrain()
    assert after >= before + 10


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
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


class Setting:
    """The small model on the shipped digits: the same parts as often as they are asked for."""

    steps, seed = 6, 3
    shared: ClassVar[dict[str, Any]] = {"accumulate": 2, "clip": 0.5, "seed": seed}  # a norm that is reached

    def __init__(self) -> None:
        settings = {"data.path": "digits", "out": "unused", "train.max_steps": self.steps, "seed": self.seed}
        self.recipe = read_recipe("vision/small", settings, PretrainRecipe)
        self.schedule = self.recipe.optim.build_schedule(self.steps)

    def parts(self) -> tuple[Data2Vec, Loader[Any], torch.optim.Optimizer]:
        torch.manual_seed(self.seed)
        model = self.recipe.model_config().build()
        data = self.recipe.data.build("train", batch_size=8, seed=self.seed, training=True)
        return model, data, self.recipe.optim.build(model)

    def fitted(self, precision: Precision = "fp32") -> tuple[list[float], Data2Vec]:
        hook = Losses()
        model, data, optimizer = self.parts()
        options: dict[str, Any] = {"max_steps": self.steps, "log_every": 1, "hooks": [hook], **self.shared}
        fit(model, data, optimizer=optimizer, schedule=self.schedule, precision=precision, **options)
        return hook.seen, model


def same_weights(model: Data2Vec, other: Data2Vec) -> None:
    """Bit for bit: the same operations in the same order give the same bits."""
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_the_bare_loop_runs() -> None:
    output = output_of("bare_loop", "--steps", "12")
    assert re.search(r"step 10/12  loss [\d.]+\nstep 12/12  loss [\d.]+\n$", output), output


def test_the_bare_loop_does_as_fit() -> None:
    bare_loop, setting = example("bare_loop"), Setting()
    assert len(inspect.getsource(bare_loop.train).splitlines()) <= 40
    bare, data, optimizer = setting.parts()
    losses = list(bare_loop.train(bare, data, optimizer, setting.schedule, steps=setting.steps, **setting.shared))
    expected, fitted = setting.fitted()
    assert losses == expected
    same_weights(bare, fitted)


def test_the_fabric_loop_runs() -> None:
    output = output_of("fabric_loop", "--steps", "12", "--accelerator", "cpu")
    assert re.search(r"step 10/12  loss [\d.]+\nstep 12/12  loss [\d.]+\n$", output), output


@pytest.mark.parametrize(("precision", "theirs"), [("fp32", "32-true"), ("bf16", "bf16-mixed")])
def test_the_fabric_loop_does_as_fit(precision: Precision, theirs: Any) -> None:
    fabric_loop, setting = example("fabric_loop"), Setting()
    assert len(inspect.getsource(fabric_loop.train).splitlines()) <= 50
    model, data, optimizer = setting.parts()
    fabric = fabric_loop.Fabric(accelerator="cpu", devices=1, precision=theirs)
    losses = fabric_loop.train(fabric, model, data, optimizer, setting.schedule, steps=setting.steps, **setting.shared)
    expected, fitted = setting.fitted(precision)
    assert list(losses) == expected
    same_weights(model, fitted)


@pytest.mark.long
def test_the_fabric_loop_does_as_fit_on_a_plain_processor() -> None:
    """Without wide bf16 instructions products round elsewhere, and what differs in a last bit grows at once."""
    command = [sys.executable, "-m", "pytest", "-q", f"{__file__}::test_the_fabric_loop_does_as_fit"]
    plain = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **plain}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
