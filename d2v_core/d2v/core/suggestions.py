"""Suggestions in error messages: what the user may have meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message with the most similar known name, or an empty string.

    >>> nearest("studnet", ["student", "teacher"])
    "; did you mean 'student'?"
    >>> nearest("xyz", ["student", "teacher"])
    ''
    """
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
