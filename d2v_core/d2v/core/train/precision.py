"""Half precision: where it pays, the autocast that it means, and the published scaling of the loss for fp16.

It knows nothing of models or optimisers.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
_WINDOW = 1 << 14
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


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context for a forward pass.

    Raises:
        ValueError: if there is no such precision.

    >>> with autocast("bf16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    if precision not in ("fp32", "bf16", "fp16"):
        raise ValueError(f"precision={precision!r} must be 'fp32', 'bf16' or 'fp16'")
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def _processor_has_bf16() -> bool:
    # Without this library, as in torch for Apple's processors, products in bf16 take the slow way whatever there is.
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch does not type it
        return False
    # Not documented in every release that we support: one that does not tell computes in fp32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    told_otherwise = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return any(capabilities.get(name, False) for name in _BF16_INSTRUCTIONS) or bool(told_otherwise())


class LossScale:
    """Factor on the loss that keeps fp16 gradients in range, as in the published runs.

    It starts at 128, doubles after `window` updates in a row without overflow, and halves at an overflow, whose update
    is skipped and not counted.

    Args:
        initial: first factor.
        window: updates; published: 2^14 / (workers * accumulation), see `published`.
        minimum: a smaller factor is a failure (published: 1e-6; 1e-4 for base text and 1.0).

    Raises:
        ValueError: if a value is not positive.

    >>> scale = LossScale(window=2)
    >>> scale.overflow(step=0); scale.value
    64.0
    >>> scale.success(); scale.success(); scale.value
    128.0
    """

    def __init__(self, *, initial: float = 128.0, window: int = _WINDOW, minimum: float = 1e-6) -> None:
        for name, value in {"initial": initial, "window": window, "minimum": minimum}.items():
            if not value > 0:
                raise ValueError(f"{name}={value} must be positive")
        self.value = float(initial)
        self.window = window
        self.minimum = minimum
        self._successes = 0

    @classmethod
    def published(cls, *, workers: int, accumulate: int) -> "LossScale":
        """The scale of the published runs for so many workers and micro-batches."""
        return cls(window=max(1, _WINDOW // (workers * accumulate)))

    def success(self) -> None:
        """An update without overflow."""
        self._successes += 1
        if self._successes % self.window == 0:
            self.value *= 2

    def overflow(self, *, step: int) -> None:
        """An update with overflow, after `step` finished ones.

        Raises:
            NonFiniteError: if the factor falls below the minimum.
        """
        self._successes = 0
        self.value /= 2
        if self.value < self.minimum:
            raise NonFiniteError(
                f"update {step + 1} overflows in fp16 at any loss scale down to {self.minimum}; "
                "try precision=bf16, a lower learning rate or gradient clipping"
            )

    def state_dict(self) -> dict[str, float]:
        """What has to outlive the process."""
        return {"value": self.value, "successes": self._successes}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on where another scale was."""
        self.value, self._successes = state["value"], int(state["successes"])


class NonFiniteError(RuntimeError):
    """The loss or a gradient is NaN or infinite; the weights are those of the last finished update."""
