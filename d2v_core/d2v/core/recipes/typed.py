"""Read values typed on the command line by the type of their field: text is taken as typed."""

import os
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from d2v.core.files import ConfigError
from d2v.core.files.structure import is_list_of_texts, is_text
from d2v.core.recipes.yaml_text import read_yaml

_QUOTES = ("''", '""', "``", "“”", "„“", "\u2018\u2019", "«»")


class Typed(str):
    """A value as typed, not parsed yet."""

    __slots__ = ()


def read_typed(text: str, declared: Any, *, key: str) -> Any:
    """The plain value of typed text.

    Text, or one of several words, is taken as it is; an empty value or `null` is None if the field is optional. A list
    of texts is written `[a, b]`, and a single text is a list of one. Everything else is YAML.

    Args:
        text: the part after `key=`.
        declared: type of the field.
        key: for messages.

    Raises:
        ConfigError: if the value is not YAML where YAML is expected, or text has quotes that the shell did not remove.

    >>> read_typed("2023", str, key="data.path"), read_typed("2023", int, key="seed")
    ('2023', 2023)
    >>> read_typed("null", str | None, key="out"), read_typed("[val, 1e3]", tuple[str, ...], key="split")
    (None, ['val', '1e3'])
    """
    kinds = set(_parts(declared))
    takes_none = NoneType in kinds
    kinds -= {NoneType}
    texts, lists = bool(kinds) and all(map(is_text, kinds)), bool(kinds) and all(map(is_list_of_texts, kinds))
    if takes_none and text in ("", "null"):
        return None
    if texts or (lists and not text.startswith("[")):
        _refuse_quotes(text, key)
        return str(text) if texts else [str(text)]
    if lists:
        return read_yaml(text, name=f"{key}={text}", texts=True)
    return read_yaml(text, name=f"{key}={text}") if text else None


def is_name(value: object) -> bool:
    """Whether a value given for a section can only be the path of that section.

    >>> is_name(Typed("photos")), is_name(Typed("{size: 32}")), is_name({"size": 32})
    (True, False, False)
    """
    if isinstance(value, Typed):
        return not value.startswith("{") and value not in ("", "null")
    return isinstance(value, str | os.PathLike)


def _parts(declared: Any) -> Iterator[Any]:
    if get_origin(declared) is Annotated:
        yield from _parts(get_args(declared)[0])
    elif get_origin(declared) in (Union, UnionType):
        for part in get_args(declared):
            yield from _parts(part)
    else:
        yield declared


def _refuse_quotes(text: str, key: str) -> None:
    if len(text) > 1 and f"{text[0]}{text[-1]}" in _QUOTES:
        raise ConfigError(
            f"{key}={text}: the quotes would be part of the text; write {key}={text[1:-1]}, or with "
            f"spaces '{key}={text[1:-1]}'"
        )
