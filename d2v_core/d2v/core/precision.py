"""Precision of a forward pass: what may be asked for, what a device does by itself, and the autocast that it means."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from d2v.core.validators import check, one_of

__all__ = ["AskedPrecision", "FeaturePrecision", "Precision", "autocast", "decided", "native_precision"]

Precision = Literal["fp32", "bf16", "fp16"]
"""What is computed in."""
AskedPrecision = Literal["auto", Precision]
"""What a user may ask for: a precision, or auto = what the device does by itself."""

FeaturePrecision = Literal["auto", "fp32", "bf16"]
"""What a user may ask for where features are read: in fp16 a large one would become infinite, untold."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # the last one is ARM's name


def native_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where the device multiplies in it by itself, fp32 where it would be emulated: that is slower than fp32.

    Args:
        device: of the computation. Other kinds than `cuda` and `cpu` compute in fp32.

    >>> native_precision(torch.device("meta"))
    'fp32'
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and _processor_has_bf16()
    return "bf16" if native else "fp32"


def decided(asked: AskedPrecision, device: torch.device) -> Precision:
    """What is computed in on a device: what was asked for, with auto decided.

    >>> decided("fp16", torch.device("cpu")), decided("auto", torch.device("meta"))
    ('fp16', 'fp32')
    """
    return native_precision(device) if asked == "auto" else asked


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context for a forward pass.

    Raises:
        ValueError: if there is no such precision.

    >>> with autocast("bf16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    check(one_of(Precision), precision=precision)
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=_DTYPES[precision])


def _processor_has_bf16() -> bool:
    # Without this library, as in torch for Apple's processors, products in bf16 take the slow way whatever there is.
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch does not type it
        return False
    # Not documented in every release that we support: one that does not tell computes in fp32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    told_otherwise = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return any(capabilities.get(name, False) for name in _BF16_INSTRUCTIONS) or bool(told_otherwise())
