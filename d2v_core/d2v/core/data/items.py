"""Samples that a user passes in a list instead of a data set: paths, arrays, strings.

Each modality decides which types of items it takes (`DataConfig.prepare`). This module holds the code they share.
"""

import os
from collections.abc import Iterable
from typing import Any

from d2v.core.data.broken import DataError

_SHOWN = 200  # characters of a text that an error message repeats


def item_list(items: Iterable[Any]) -> list[Any]:
    """Return the items as a list.

    Raises:
        DataError: if there are no items, or if a single item was passed, which would be split: a string into letters,
            an array into rows.

    >>> item_list(path for path in ("a.png", "b.png"))
    ['a.png', 'b.png']
    >>> item_list("a.png")
    Traceback (most recent call last):
    d2v.core.data.broken.DataError: 'a.png' is one item; give a list: [item]
    """
    if isinstance(items, str | bytes | os.PathLike) or hasattr(items, "shape") or not isinstance(items, Iterable):
        raise DataError(f"{_shown(items)} is one item; give a list: [item]")
    found = list(items)
    if not found:
        raise DataError("the list of items is empty: there is nothing to prepare")
    return found


def item_error(index: int, item: Any, reason: str) -> DataError:
    """Return the error for an item that cannot be prepared; it names the item.

    >>> item_error(3, "cats/1.jpg", "not an image")
    DataError("item 3, 'cats/1.jpg': not an image")
    """
    return DataError(f"item {index}, {_shown(item)}: {reason}")


def _shown(item: Any) -> str:
    if isinstance(item, str | os.PathLike):
        text = os.fspath(item)
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
    shape = getattr(item, "shape", None)
    kind = type(item).__name__
    return f"a {kind}" if shape is None else f"a {kind} of shape {tuple(shape)} and type {getattr(item, 'dtype', '?')}"
