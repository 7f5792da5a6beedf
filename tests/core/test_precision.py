"""The default precision of a device, and the precisions that it supports."""

from typing import Any

import pytest
import torch

from d2v.core.files import ConfigError, from_plain
from d2v.core.jobs.extraction import ExtractSettings
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.precision import autocast, decided, native_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def processor(monkeypatch: pytest.MonkeyPatch, **capabilities: Any) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    supported = bool(capabilities.get("avx512_bf16"))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)


@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_that_has_it(monkeypatch: pytest.MonkeyPatch, instruction: str) -> None:
    processor(monkeypatch, avx2=True, **{instruction: True})
    assert native_precision(CPU) == "bf16"


@pytest.mark.parametrize("capabilities", [{}, {"avx512_f": True, "avx512_bw": True, "amx_bf16": False}])
def test_a_processor_that_would_emulate_it(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool]) -> None:
    processor(monkeypatch, **capabilities)
    assert native_precision(CPU) == "fp32"


def test_a_torch_without_the_library_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, bf16=True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert native_precision(CPU) == "fp32"


@pytest.mark.parametrize(("older", "expected"), [(True, "bf16"), (False, "fp32"), (None, "fp32")])
def test_a_torch_that_tells_less(monkeypatch: pytest.MonkeyPatch, older: bool | None, expected: str) -> None:
    processor(monkeypatch)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    if older is None:
        monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    else:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: older)
    assert native_precision(CPU) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_that_would_emulate_it_does_not_count(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert native_precision(CUDA) == expected


def test_other_devices_take_full_precision() -> None:
    assert native_precision(torch.device("mps")) == "fp32"


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", "bf16"), ("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp16")]
)
def test_auto_is_decided_and_nothing_else(monkeypatch: pytest.MonkeyPatch, asked: Any, expected: str) -> None:
    processor(monkeypatch, bf16=True)
    assert decided(asked, CPU) == expected


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_what_products_are_computed_in(precision: Any, dtype: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize("precision", ["auto", "half"])
def test_a_precision_that_is_none(precision: Any) -> None:
    with pytest.raises(ValueError, match=f"precision='{precision}'.*'bf16'"):
        autocast(precision, CPU)


@pytest.mark.parametrize("settings", [ExtractSettings, ProbeSettings])
def test_features_are_not_read_in_fp16(settings: Any) -> None:
    values = {"model": "run", "data": {"kind": "vision", "path": "digits"}, "precision": "fp16"}
    with pytest.raises(ConfigError, match=r"precision.*fp16"):
        from_plain(values | ({"out": "f.npy"} if settings is ExtractSettings else {}), settings)
