"""Patterns that pick modules or parameters of a model by their dotted names."""

import re
from collections.abc import Collection, Iterable

from d2v.core.suggestions import nearest


def matching(patterns: Iterable[str], names: Collection[str], *, of: str) -> list[str]:
    """Names that match any of the patterns, in the order of the patterns.

    A pattern is a dotted name; each part may hold wildcards, and "*" stays within its part: "adapters.*.mask_token".

    Args:
        patterns: what to look for.
        names: all names that there are.
        of: what the names belong to, for messages.

    Raises:
        ValueError: if a pattern matches nothing.

    >>> matching(["*.bias"], ["norm.weight", "norm.bias", "blocks.0.bias"], of="the model")
    ['norm.bias']
    """
    found = []
    for pattern in patterns:
        regex = re.compile(re.escape(pattern).replace(r"\*", "[^.]*"))
        hits = [name for name in names if regex.fullmatch(name)]
        if not hits:
            raise ValueError(f"no part of {of} matches {pattern!r}{nearest(pattern, names)}")
        found += hits
    return found
