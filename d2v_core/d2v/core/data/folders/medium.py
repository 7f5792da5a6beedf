"""What counts as a file of a data set: by its extension, otherwise by its first bytes."""

from collections.abc import Callable
from functools import cached_property

from attrs import frozen


@frozen(kw_only=True, eq=False)
class Medium:
    """Files of one modality.

    Args:
        unit: word for the samples, in the plural: "images".
        extensions: function that returns the known file extensions, without the dot, in lower case; called once, when
            the first folder is scanned.
        recognises: function from the path of a file with another extension to whether its content is of this modality;
            raises `OSError` if the file cannot be opened.
        check: command that lists the unused files of a path: "d2v data check-images".
        own_splits: whether splits may have names of their own, such as `dev_other`.

    >>> texts = Medium(unit="texts", extensions=lambda: frozenset(["txt"]), recognises=lambda path: False, check="")
    >>> ".TXT" in texts.as_written, texts.knows("a.b.Txt"), texts.knows("README")
    (True, True, False)
    """

    unit: str
    extensions: Callable[[], frozenset[str]]
    recognises: Callable[[str], bool]
    check: str
    own_splits: bool = False

    @property
    def one(self) -> str:
        """The unit in the singular, with its article."""
        return f"{'an' if self.unit[0] in 'aeiou' else 'a'} {self.unit.removesuffix('s')}"

    @cached_property
    def known(self) -> frozenset[str]:
        """The extensions without the dot, in lower case."""
        return self.extensions()

    @cached_property
    def as_written(self) -> frozenset[str]:
        """The extensions with the dot, in lower, upper and title case."""
        return frozenset(f".{form}" for end in self.known for form in (end, end.upper(), end.title()))

    def knows(self, name: str) -> bool:
        """Return whether a file name has a known extension."""
        return extension(name) in self.known

    def takes(self, path: str) -> bool:
        """Return whether a file is of this modality; raises `OSError` if it has to be opened and cannot be."""
        return self.knows(path) or self.recognises(path)


def extension(name: str) -> str:
    """The extension of a file name in lower case, without the dot; "" = none.

    >>> extension("a.b.JPG"), extension("README")
    ('jpg', '')
    """
    return name.rpartition(".")[2].lower() if "." in name else ""
