"""How a run decides its precision."""

from pathlib import Path
from typing import Any

import pytest
import torch

from d2v.core import precision
from d2v.core.files import ConfigError
from d2v.core.jobs.running import decided_precision
from d2v.core.recipes.recipe import Run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def a_device_with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "native_precision", lambda device: "bf16")


def begun(path: Path, text: str, **options: Any) -> Run:
    (path / "config.yaml").write_text(text)
    return Run(out=str(path), **options)


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_what_is_said_counts(tmp_path: Path, wanted: Any) -> None:
    recipe = begun(tmp_path, "train: {precision: fp32}", resume=True)
    assert decided_precision(wanted, recipe, CPU) == wanted


def test_a_new_run_takes_the_device_s_own(tmp_path: Path) -> None:
    assert decided_precision("auto", Run(out=str(tmp_path / "new"), resume=True), CPU) == "bf16"


@pytest.mark.parametrize("there", ["fp32", "fp16"])
def test_a_run_goes_on_as_it_was_begun(tmp_path: Path, there: str) -> None:
    recipe = begun(tmp_path, f"train:\n  precision: {there}\n", resume=True)
    assert decided_precision("auto", recipe, CPU) == there


@pytest.mark.parametrize("text", ["", "seed: 0", "train: 3", "train: {precision: half}", "train: {precision: [fp32]}"])
def test_a_configuration_that_does_not_tell(tmp_path: Path, text: str) -> None:
    assert decided_precision("auto", begun(tmp_path, text, resume=True), CPU) == "bf16"


def test_a_configuration_that_is_broken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not YAML"):
        decided_precision("auto", begun(tmp_path, "train: {", resume=True), CPU)


def test_a_run_that_is_not_gone_on_with_is_not_asked(tmp_path: Path) -> None:
    assert decided_precision("auto", begun(tmp_path, "train: {precision: fp32}"), CPU) == "bf16"
