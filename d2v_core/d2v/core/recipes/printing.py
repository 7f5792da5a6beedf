"""A configuration as YAML that a person reads, one line of comment a field."""

from collections.abc import Mapping
from typing import Any

from d2v.core.recipes.schema import REQUIRED, keys
from d2v.core.recipes.yaml_text import yaml_scalar

_COLUMN = 44


def as_yaml(config: Any, values: Mapping[str, Any], *, comments: bool) -> str:
    """The text; what is still to be given stands as `???`.

    Args:
        config: class of the configuration.
        values: plain, possibly incomplete: defaults are filled in.
        comments: whether each line says what it means.

    >>> from d2v.core import EMASchedule
    >>> print(as_yaml(EMASchedule, {"start": 0.97, "anneal": 0.7}, comments=False), end="")
    start: 0.97
    end: null
    anneal: 0.7
    total: null
    first: 1
    """
    lines = []
    for key in keys(config, values):
        depth, last = key.name.count("."), key.name.rpartition(".")[2]
        shown = "" if key.section else " ???" if key.value is REQUIRED else f" {yaml_scalar(key.value)}"
        line = f"{'  ' * depth}{last}:{shown}"
        comment = key.comment
        if key.value is REQUIRED:
            comment = f"to be given: {comment}" if comment else "to be given"
        lines.append(f"{line:<{_COLUMN}} # {comment}" if comments and comment else line)
    return "".join(f"{line}\n" for line in lines)
