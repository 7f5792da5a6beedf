"""Lexicons of beam search: words and how the symbols of a dictionary spell them."""

import logging
import os
from collections import Counter
from pathlib import Path

from attrs import field, frozen
from attrs.validators import min_len

from d2v.audio.recordings.transcripts import read_lines
from d2v.core.data import DataError, escaped
from d2v.core.labels import Symbols

_logger = logging.getLogger(__name__)
_NAMED = 3
_MOST_HOMOPHONES = 6  # of flashlight-text's tree


@frozen(kw_only=True)
class Lexicon:
    """Words with their spellings.

    Args:
        words: each word once, in the order of their numbers.
        spellings: number of a word and the numbers of its symbols; a word may have several.
    """

    words: tuple[str, ...] = field(validator=min_len(1))
    spellings: tuple[tuple[int, tuple[int, ...]], ...] = field(validator=min_len(1), repr=False)


def read_lexicon(path: str | os.PathLike[str], labels: Symbols) -> Lexicon:
    """Read a lexicon: in each line a word, white space and its symbols, separated by spaces: `CAT C A T |`.

    The boundary of words ends each spelling, if the dictionary has one. A word in several lines has several spellings.

    Args:
        path: of the file, UTF-8.
        labels: the dictionary of the model.

    Raises:
        DataError: naming the line, if the file cannot be read or is empty, or a spelling is missing, contains a symbol
            that the dictionary lacks (or its blank), or does not end with the boundary.
    """
    name = escaped(str(path))
    known = {symbol: number for number, symbol in enumerate(labels.symbols)}
    left_out = {labels.blank, *labels.specials}
    words: dict[str, int] = {}
    spellings: dict[tuple[int, tuple[int, ...]], None] = {}
    wrong: list[str] = []
    for number, line in enumerate(read_lines(Path(path)), 1):
        word, *units = line.split() or [""]
        if not word:
            continue
        missing = [unit for unit in units if unit not in known or unit in left_out]
        if missing:
            wrong.append(f"line {number}: {escaped(word)} needs {escaped(missing[0])!r}")
        elif not units or (labels.boundary is not None and (units[-1] != labels.boundary or len(units) == 1)):
            ending = "" if labels.boundary is None else f" that ends with {labels.boundary}"
            raise DataError(f"{name}, line {number}: {escaped(word)} needs a spelling{ending}")
        else:
            spellings[words.setdefault(word, len(words)), tuple(known[unit] for unit in units)] = None
    if wrong:
        more = "" if len(wrong) <= _NAMED else f" and {len(wrong) - _NAMED} more"
        raise DataError(
            f"{name}: the dictionary cannot spell {len(wrong)} lines: {'; '.join(wrong[:_NAMED])}{more}; it has "
            f"{' '.join(symbol for symbol in labels.symbols if symbol not in left_out)[:200]}"
        )
    if not words:
        raise DataError(f"{name} has no words: write lines like CAT C A T {labels.boundary or ''}".rstrip())
    most, count = Counter(spelling for _, spelling in spellings).most_common(1)[0]
    if count > _MOST_HOMOPHONES:
        spelled = "".join(labels.symbols[number] for number in most)
        _logger.warning("%s: %d words are spelled %s; the search uses the first 6", name, count, escaped(spelled))
    return Lexicon(words=tuple(words), spellings=tuple(spellings))
