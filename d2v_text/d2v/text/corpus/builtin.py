"""Text that ships with the package, so that the first run needs no download; `shipped/LICENSE-*` has its licence."""

from importlib.resources import files
from pathlib import Path

BUILTIN = ("wordnet",)
"""Names of the built-in sets. `wordnet`: 33,000 glosses of WordNet 3.1 (Fellbaum 1998) with their examples, 3.6 MB."""


def builtin_text(name: str) -> Path:
    """Return the text file of a built-in set.

    >>> builtin_text("wordnet").name
    'wordnet.txt.gz'
    """
    return Path(str(files("d2v.text") / "shipped" / f"{name}.txt.gz"))
