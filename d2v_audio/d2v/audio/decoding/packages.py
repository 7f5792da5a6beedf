"""The packages of the extra `decode`, imported on first use. They have no types."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from d2v.core.registry import MissingExtraError


def require_packages(*names: str) -> None:
    """Check that packages are installed.

    Raises:
        MissingExtraError: naming those that are missing, and the pip command.

    >>> require_packages("torch")
    >>> require_packages("torch", "flashlite")
    Traceback (most recent call last):
    d2v.core.registry.MissingExtraError: beam search needs flashlite, which is not installed: pip install 'd2v[decode]'
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"beam search needs {', '.join(missing)}, which {verb} not installed: pip install 'd2v[decode]'",
            name=missing[0],
        )


def flashlight() -> Any:
    """The module with flashlight-text's decoders, tries and language models.

    Raises:
        MissingExtraError: if it is not installed.
    """
    require_packages("flashlight")
    return import_module("flashlight.lib.text.decoder")
