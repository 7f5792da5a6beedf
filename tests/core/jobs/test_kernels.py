"""Kernels of a run: measured once for each machine, kept on resume, forced by a key, the same on all ranks."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from d2v.core.files import ConfigError
from d2v.core.jobs import kernels
from d2v.core.jobs.diagnosis import tiny_model
from d2v.core.jobs.kernels import InferenceKernels, kernels_of, kernels_report, measured, use_kernels
from d2v.core.jobs.running import recorded_kernels
from d2v.core.nn import ConvDecoder, TransformerBlock, linear
from d2v.core.nn.inference import packed_weights
from d2v.core.recipes import TrainConfig
from d2v.core.recipes.recipe import Run

DECODER = "channels-last-decoder"
LINEAR = "onednn-linear"
AUTO = ("auto",)


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Ratios that measurements give, the last one first; the cache folder is empty."""
    ratios: list[float] = []
    monkeypatch.setattr(kernels, "measured_ratio", lambda parts: ratios.pop())
    monkeypatch.setenv("D2V_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("D2V_KERNELS")
    monkeypatch.setattr(linear, "has_onednn_linear", lambda: True)
    return ratios


def decoder() -> ConvDecoder:
    return ConvDecoder(8, decoder_dim=8, num_layers=1, kernel_size=3)


def test_the_faster_forms_are_taken_and_a_small_gain_is_noise(timed: list[float]) -> None:
    model = decoder()
    timed[:] = [0.5, 0.97]  # of the decoder, of linear layers: in the order of the modules
    use_kernels(model, AUTO, recorded=None, precision="fp32")
    assert len(timed) == 0
    assert len(kernels_of(model)) == 1
    assert kernels_of(tiny_model()) == ("plain",)


def test_measurements_are_kept_by_machine_and_size(
    timed: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ConvDecoder(8, decoder_dim=8, num_layers=2, kernel_size=3)
    timed[:] = [0.5, 0.4]
    first = measured(model, "fp32")
    assert sorted(first.values()) == [0.4, 0.5]
    assert measured(ConvDecoder(8, decoder_dim=8, num_layers=2, kernel_size=3), "fp32") == first  # nothing is left
    assert len(json.loads((tmp_path / "cache/kernels.json").read_text())) == 2
    for change in ("processor", "precision", "size", "threads"):
        timed[:] = [0.8, 0.7]
        other = model
        if change == "processor":
            monkeypatch.setattr(kernels, "processor", lambda: "another")
        if change == "size":
            other = ConvDecoder(16, decoder_dim=16, num_layers=2, kernel_size=3)
        if change == "threads":
            monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        assert sorted(measured(other, "bf16" if change == "precision" else "fp32").values()) == [0.7, 0.8], change


@pytest.mark.parametrize("text", ["", "[]", "3", '{"x": "fast"}', "\x00", '{"x"'])
def test_a_broken_cache_is_replaced(text: str, timed: list[float], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/kernels.json").write_text(text)
    timed[:] = [0.5, 0.5]
    assert sorted(measured(decoder(), "fp32")) == [DECODER, LINEAR]
    assert sorted(json.loads((tmp_path / "cache/kernels.json").read_text()).values()) == [0.5, 0.5]


def test_a_cache_that_cannot_be_written(timed: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file")
    timed[:] = [0.5, 0.5]
    assert sorted(measured(decoder(), "fp32").values()) == [0.5, 0.5]
    assert "not kept" in caplog.text


def test_a_word_of_the_environment_means_plain(timed: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2V_KERNELS", "plain")
    timed[:] = [0.1, 0.1]
    model = decoder()
    use_kernels(model, AUTO, recorded=None, precision="fp32")
    assert kernels_of(model) == ("plain",)
    assert len(timed) == 2


@pytest.mark.parametrize("recorded", [("plain",), (DECODER,)])
def test_a_run_that_goes_on_takes_what_it_took(recorded: tuple[str, ...], timed: list[float]) -> None:
    model = decoder()
    use_kernels(model, AUTO, recorded=recorded, precision="fp32")  # nothing is measured
    assert kernels_of(model) == recorded


def test_inference_measures_apart_from_training(timed: list[float], tmp_path: Path) -> None:
    model = TransformerBlock(8, num_heads=2)
    timed[:] = [0.5, 0.9, 1.1]  # of linear layers in training; of these and of attention in inference
    timed.reverse()
    assert measured(model, "fp32") == {LINEAR: 0.5}
    found = InferenceKernels().names(model, "fp32")
    assert found == InferenceKernels().names(model, "fp32")
    assert len(found) == 1
    assert timed == []
    known = json.loads((tmp_path / "cache/kernels.json").read_text())
    assert sorted(", inference: " in key for key in known) == [False, True, True]


def test_what_forces_forms_of_inference(timed: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    model = TransformerBlock(8, num_heads=2)
    assert InferenceKernels("plain").names(model, "fp32") == ("plain",)
    assert InferenceKernels([LINEAR]).names(model, "fp32") == (LINEAR,)
    assert InferenceKernels([LINEAR]).names(model, "fp16") == ("plain",)
    with pytest.raises(ConfigError, match=r"kernels: .* no form 'fast'; it has .*, or auto or plain"):
        InferenceKernels(["fast"]).names(model, "fp32")
    with pytest.raises(ConfigError, match=r"kernels=.* must be"):
        InferenceKernels(["auto", LINEAR])
    monkeypatch.setenv("D2V_KERNELS", "plain")
    assert InferenceKernels().names(model, "fp32") == ("plain",)
    with InferenceKernels().of(model, "fp32"):
        assert packed_weights() is None
        assert not torch.is_grad_enabled()
    with InferenceKernels([LINEAR]).of(model, "fp32"):
        assert packed_weights() is not None
    assert kernels_of(model) == ("plain",)


def test_a_key_forces_forms(timed: list[float]) -> None:
    model = decoder()
    use_kernels(model, (DECODER,), recorded=("plain",), precision="fp32")
    assert kernels_of(model) == (DECODER,)
    use_kernels(model, ("plain",), recorded=(DECODER,), precision="fp32")
    assert kernels_of(model) == ("plain",)
    with pytest.raises(ConfigError, match=r"train\.kernels: .* no form 'fast'; it has .*, or auto or plain"):
        use_kernels(model, ("fast",), recorded=None, precision="fp32")


@pytest.mark.parametrize("lacking", ["operator", "precision"])
def test_what_this_machine_lacks_is_plain(
    lacking: str, timed: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if lacking == "operator":
        monkeypatch.setattr(linear, "has_onednn_linear", lambda: False)
    model = decoder()
    precision: Any = "bf16" if lacking == "precision" else "fp32"
    with caplog.at_level(logging.WARNING):
        use_kernels(model, (LINEAR, DECODER), recorded=None, precision=precision)
    assert kernels_of(model) == (DECODER,)
    assert f"train.kernels={LINEAR} is not available in {precision}" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {kernels: [onednn-linear]}", (LINEAR,)),
        ("train: {kernels: [plain]}", ("plain",)),
        ("train: {kernels: {}}", ("plain",)),
        ("train: {}", ("plain",)),
        ("seed: 0", ("plain",)),
    ],
)
def test_what_a_run_recorded(text: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert recorded_kernels(Run(out=str(tmp_path), resume=True)) == expected
    assert recorded_kernels(Run(out=str(tmp_path))) is None
    assert recorded_kernels(Run(out=str(tmp_path / "new"), resume=True)) is None


@pytest.mark.parametrize("value", [["auto", LINEAR], [], [3], 3, [LINEAR, LINEAR], {"linear": LINEAR}])
def test_wrong_values_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"kernels=.* must be"):
        TrainConfig(max_steps=1, batch_size=1, kernels=value)


@pytest.mark.parametrize(("value", "expected"), [("plain", ("plain",)), ({}, ("plain",)), ([LINEAR], (LINEAR,))])
def test_right_values(value: Any, expected: tuple[str, ...]) -> None:
    assert TrainConfig(max_steps=1, batch_size=1, kernels=value).kernels == expected


def test_the_doctor_says_what_is_faster(timed: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "native_precision", lambda device: "bf16")
    ratios = {LINEAR: 0.5, DECODER: 1.2}
    monkeypatch.setattr(kernels, "measured", lambda model, precision: ratios if precision == "fp32" else {})
    assert dict(kernels_report()) == {
        "kernels, fp32": f"{LINEAR} (time / plain: {LINEAR} 0.50, {DECODER} 1.20)",
        "kernels, bf16": "plain",
    }


def test_the_first_rank_decides(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / "kernels_worker.py"), str(tmp_path)]
    children = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    try:
        assert [child.wait(timeout=100) for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(2)]
    assert [one["asked"] for one in found] == [[0], []]
    assert found[0]["taken"] == found[1]["taken"] == ([LINEAR] if linear.has_onednn_linear() else ["plain"])


def test_a_form_that_fails_is_not_taken(
    timed: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(parts: list[Any]) -> float:
        if parts[0].other_form == DECODER:
            raise RuntimeError("not implemented\nfor Half")
        return 0.5

    monkeypatch.setattr(kernels, "measured_ratio", fails)
    assert measured(decoder(), "fp32") == {LINEAR: 0.5}
    assert f"train.kernels={DECODER} cannot be used here: not implemented" in caplog.text
    assert len(json.loads((tmp_path / "cache/kernels.json").read_text())) == 1
