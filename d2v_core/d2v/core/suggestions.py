"""What the user may have meant, for error messages."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """A half-sentence that names what the user may have meant, or nothing.

    >>> nearest("studnet", ["student", "teacher"])
    "; did you mean 'student'?"
    >>> nearest("xyz", ["student", "teacher"])
    ''
    """
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
