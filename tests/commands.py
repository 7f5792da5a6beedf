"""What the tests of the commands share."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]
"""Runs a command; gives exit code, output and errors."""

SHORT = ["train.max_steps=4", "train.log_every=2", "train.checkpoint_every=2", "device=cpu"]
"""Keys of a run of seconds."""
