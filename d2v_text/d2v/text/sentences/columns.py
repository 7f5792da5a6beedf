"""Which columns of a table are the text, the second text of a pair, and the label."""

from collections.abc import Sequence

from attrs import frozen

from d2v.core.data import DataError, escaped
from d2v.core.suggestions import nearest
from d2v.text.sentences.reading import Table

_PAIRS = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("text", "text_pair"),
)
_TEXTS = ("text", "sentence", "document", "content", "review", "comment", "tweet", "body", "message")
_LABELS = ("label", "labels", "class", "category", "target", "topic", "sentiment", "score", "rating")
SPLIT = "split"


@frozen(kw_only=True)
class Columns:
    """Names of columns.

    Args:
        text: of the text, or of the first text of a pair.
        pair: of the second text; None = there are no pairs.
        label: of the label; None = there is none.
        guessed: keys whose columns were found by their usual names.
    """

    text: str
    pair: str | None = None
    label: str | None = None
    guessed: tuple[str, ...] = ()

    def described(self) -> str:
        """The columns in one line, with how to choose others.

        >>> Columns(text="review", label="stars", guessed=("data.text",)).described()
        "columns 'review' (text), 'stars' (label); choose others with data.text"
        """
        named = {"text": self.text, "second text": self.pair, "label": self.label}
        text = ", ".join(f"{name!r} ({what})" for what, name in named.items() if name is not None)
        kind = "column" if "," not in text else "columns"
        return f"{kind} {text}" + (f"; choose others with {', '.join(self.guessed)}" if self.guessed else "")


def find_columns(
    table: Table, *, text: str | None = None, pair: str | None = None, label: str | None = None
) -> Columns:
    """Choose the columns of a table; those that are not given are found by their usual names.

    Args:
        table: the table.
        text: column of the text; None = found.
        pair: column of the second text; None = found together with the text.
        label: column of the label; None = found, if there is one. New texts may lack a label column that is given.

    Raises:
        DataError: if a column does not exist, none has a usual name, or several have.

    >>> table = Table(path="a.csv", columns=("id", "Sentence", "label"), rows=[], lines=[])
    >>> find_columns(table).text
    'Sentence'
    """
    guessed: list[str] = []
    for key, name in (("text", text), ("text_pair", pair)):
        _check(table, key, name)
    left = [name for name in table.columns if name not in (text, pair, label)]
    if text is None:
        if pair is not None:
            raise DataError(f"data.text_pair={pair!r} needs data.text, the column of the first text")
        text, pair = _texts(table, left)
        guessed += ["data.text"]
    if label is None:
        found = [name for name in _named(left, _LABELS) if name not in (text, pair)]
        if len(found) > 1:
            raise _several(table, "label", found)
        if found:
            label = found[0]
            guessed.append("data.label")
    elif label not in table.columns:
        label = None
    return Columns(text=text, pair=pair, label=label, guessed=tuple(guessed) if len(table.columns) > 1 else ())


def _texts(table: Table, left: Sequence[str]) -> tuple[str, str | None]:
    """The column of the text, or the two columns of pairs."""
    pairs = [found for names in _PAIRS if len(found := _named(left, names)) == 2]
    if len(pairs) == 1:
        return pairs[0][0], pairs[0][1]
    found = _named(left, _TEXTS)
    if len(pairs) > 1 or len(found) > 1:
        raise _several(table, "text", found or [name for names in pairs for name in names])
    if not found:
        listed = ", ".join(map(repr, table.columns)) or "none"
        raise DataError(
            f"{escaped(table.path)} has the columns {listed}, and none has a usual name of a text; set data.text and, "
            "if there are labels, data.label to columns; if the first line is no header, set data.header=false"
        )
    return found[0], None


def _named(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Columns with one of the names, in the order of the names."""
    return [column for name in names for column in columns if column.casefold() == name]


def _check(table: Table, key: str, name: str | None) -> None:
    if name is not None and name not in table.columns:
        raise DataError(
            f"data.{key}={name!r} is no column of {escaped(table.path)}, which has "
            f"{', '.join(map(repr, table.columns))}{nearest(name, table.columns)}"
        )


def _several(table: Table, key: str, found: Sequence[str]) -> DataError:
    return DataError(f"{escaped(table.path)}: {', '.join(map(repr, found))} may each be the {key}; set data.{key}")
