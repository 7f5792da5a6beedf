"""Precision of a forward pass: options, native precision of a device, and autocast."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from d2v.core.validators import check, one_of

__all__ = [
    "AskedPrecision",
    "FeaturePrecision",
    "Precision",
    "autocast",
    "autocast_dtype",
    "decided",
    "native_precision",
]

Precision = Literal["fp32", "bf16", "fp16"]
"""Precision of a computation."""
AskedPrecision = Literal["auto", Precision]
"""Precision as a user setting; auto = native precision of the device."""

FeaturePrecision = Literal["auto", "fp32", "bf16"]
"""Precision of features as a user setting; no fp16, in which large features silently become infinite."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # the last one is ARM's name


def native_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """Return bf16 if the device supports it natively, otherwise fp32: emulated bf16 is slower than fp32.

    Args:
        device: device of the computation. Devices other than `cuda` and `cpu` use fp32.

    >>> native_precision(torch.device("meta"))
    'fp32'
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and _cpu_has_bf16()
    return "bf16" if native else "fp32"


def decided(asked: AskedPrecision, device: torch.device) -> Precision:
    """Return the precision to use on a device, with auto resolved.

    >>> decided("fp16", torch.device("cpu")), decided("auto", torch.device("meta"))
    ('fp16', 'fp32')
    """
    return native_precision(device) if asked == "auto" else asked


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context manager for a forward pass.

    Raises:
        ValueError: if the precision is unknown.

    >>> with autocast("bf16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    check(one_of(Precision), precision=precision)
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=_DTYPES[precision])


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return what products are computed in where this is called; None = there is no autocast.

    >>> with autocast("bf16", torch.device("cpu")):
    ...     autocast_dtype(torch.device("cpu")), autocast_dtype(torch.device("meta"))
    (torch.bfloat16, None)
    """
    known = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if known else None


def _cpu_has_bf16() -> bool:
    # Without this library, as in torch for Apple CPUs, bf16 products are always slow.
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch does not type it
        return False
    # Not available in every supported release of torch: use fp32 if unknown.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    has_avx512_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return any(capabilities.get(name, False) for name in _BF16_INSTRUCTIONS) or bool(has_avx512_bf16())
