"""Patterns that select modules or parameters of a model by their dotted names."""

import re
from collections.abc import Collection, Iterable

from d2v.core.suggestions import nearest


def matching(patterns: Iterable[str], names: Collection[str], *, of: str) -> list[str]:
    """Return the names that match any of the patterns, in the order of the patterns.

    A pattern is a dotted name. Each component may contain wildcards; "*" matches within one component:
    "adapters.*.mask_token".

    Args:
        patterns: patterns to match.
        names: all names.
        of: owner of the names, for error messages.

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
