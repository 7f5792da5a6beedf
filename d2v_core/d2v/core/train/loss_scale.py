"""Dynamic loss scaling for fp16, as in the published runs."""

from d2v.core.validators import check, positive

_WINDOW = 1 << 14


class LossScale:
    """Factor on the loss that keeps fp16 gradients in range, as in the published runs.

    It starts at 128, doubles after `window` updates in a row without overflow, and halves at an overflow. The update
    with the overflow is skipped and not counted.

    Args:
        initial: initial factor.
        window: number of updates without overflow before the factor doubles; published: 2^14 / (workers *
            accumulation), see `published`.
        minimum: smallest factor, below which training fails (published: 1e-6; 1e-4 for base text and 1.0).

    Raises:
        ValueError: if a value is not positive.

    >>> scale = LossScale(window=2)
    >>> scale.overflow(step=0); scale.value
    64.0
    >>> scale.success(); scale.success(); scale.value
    128.0
    """

    def __init__(self, *, initial: float = 128.0, window: int = _WINDOW, minimum: float = 1e-6) -> None:
        check(positive, initial=initial, window=window, minimum=minimum)
        self.value = float(initial)
        self.window = window
        self.minimum = minimum
        self._successes = 0

    @classmethod
    def published(cls, *, workers: int, accumulate: int, minimum: float = 1e-6) -> "LossScale":
        """Return the loss scale of the published runs, for a number of workers and of micro-batches per update."""
        return cls(window=max(1, _WINDOW // (workers * accumulate)), minimum=minimum)

    def success(self) -> None:
        """Count an update without overflow."""
        self._successes += 1
        if self._successes % self.window == 0:
            self.value *= 2

    def overflow(self, *, step: int) -> None:
        """Handle an update with overflow, after `step` finished ones.

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
        """State to save in a checkpoint."""
        return {"value": self.value, "successes": self._successes}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the state of `state_dict`."""
        self.value, self._successes = state["value"], int(state["successes"])


class NonFiniteError(RuntimeError):
    """The loss or a gradient is NaN or infinite. The weights are those of the last finished update."""
