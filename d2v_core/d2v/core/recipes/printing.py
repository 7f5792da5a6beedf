"""Print a configuration as readable YAML, with one comment for each field."""

from collections.abc import Mapping
from typing import Any

from d2v.core.recipes.schema import REQUIRED, keys
from d2v.core.recipes.yaml_text import yaml_scalar

_COLUMN = 44


def as_yaml(config: Any, values: Mapping[str, Any], *, comments: bool) -> str:
    """The YAML text; values that must be set are shown as `???`.

    Args:
        config: class of the configuration.
        values: plain values, possibly incomplete: defaults are filled in.
        comments: whether to describe each key in a comment.

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
        text = "" if key.section else " ???" if key.value is REQUIRED else f" {yaml_scalar(key.value)}"
        line = f"{'  ' * depth}{last}:{text}"
        comment = key.comment
        if key.value is REQUIRED:
            comment = f"required: {comment}" if comment else "required"
        lines.append(f"{line:<{_COLUMN}} # {comment}" if comments and comment else line)
    return "".join(f"{line}\n" for line in lines)
